"""Removes lines that repeat themselves, such as logs, from texts that are otherwise running text."""

from __future__ import annotations

from pydantic import Field

from herdlm.base.recipe import Section
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.ngrams import NGrams
from herdlm.curate.orthography import UNSPACED, UNSPACED_WORD_CHARS
from herdlm.curate.step import PageStep
from herdlm.curate.words import Words, split_words

NGRAM_WORDS = 5


class RepetitiveLinesConfig(Section):
    """When a line is repetitive."""

    max_ngram_chars: float = Field(0.5, ge=0, le=1, description="share of a line in repeated word 5-grams")
    min_words: int = Field(40, ge=1, description="shorter lines are never repetitive")


class RepetitiveLines(PageStep):
    """Removes repetitive lines. The heuristics drop a page full of them, so some text is always left."""

    name, prose_only = "repetitive_lines", True
    settings: RepetitiveLinesConfig

    def run(self, batch: Batch) -> Outcome:
        pages = zip(batch["text"], batch["language"], strict=True)
        texts = [remove_repetitive_lines(text, language, self.settings) or text for text, language in pages]
        return Outcome([None] * len(texts), {"text": texts})


def repetitive_lines(text: str, language: str, config: RepetitiveLinesConfig) -> list[str]:
    """Return the lines that mostly consist of word 5-grams repeated within the line: logs, spam, error messages.

    Such lines are long and differ from each other, so deduplicating lines does not find them (Llama 3, section 3.1.1,
    with the coverage of Gopher's repetition rules). Lines of fewer than ``min_words`` words are skipped.
    """
    size = UNSPACED_WORD_CHARS if language in UNSPACED else 1
    found = []
    for line in text.split("\n"):
        if len(line) < config.min_words:
            continue
        words = split_words(line)
        if len(words) < config.min_words * size:
            continue
        chars = sum(map(len, words))
        limit = config.max_ngram_chars * chars
        if chars - sum(map(len, set(words))) <= limit:
            continue  # only repeated words can be in repeated n-grams
        numbered = Words(line)
        if NGrams(numbered.ids, numbered.lengths).duplicate_chars(NGRAM_WORDS * size) > limit:
            found.append(line)
    return found


def remove_repetitive_lines(text: str, language: str, config: RepetitiveLinesConfig) -> str:
    """Return ``text`` without its repetitive lines."""
    lines = set(repetitive_lines(text, language, config))
    return "\n".join(line for line in text.split("\n") if line not in lines) if lines else text
