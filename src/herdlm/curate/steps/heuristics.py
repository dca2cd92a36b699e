"""Drops pages that are not running text: navigation, tables, listings, spam.

Origins: [G] the quality rules and [R] the repetition rules of Gopher (Rae et al. 2021, arXiv 2112.11446, appendix
A.1.1); [C] C4 (Raffel et al. 2020, arXiv 1910.10683, section 2.2); [F] FineWeb (Penedo et al. 2024, arXiv 2406.17557,
section 3.6); [L] Llama 3 (Llama team 2024, arXiv 2407.21783, section 3.1.1). The default thresholds are
theirs. They were chosen for English, so word lengths are scaled to each language, and stop words and ends of sentences
are the language's own (``stopwords.py``, ``orthography.py``).

Programs have short lines, few stop words and as many symbols as words; formulas have words of one letter. Rules that
such texts break by nature are turned off or relaxed for code and mathematics. All others apply unchanged, so that
navigation does not pass because it looks like code.

============================== ======================= ============ ================================================
key                            code                    mathematics  why
============================== ======================= ============ ================================================
min_mean_word_chars            off                     off          operators and variables are words of one character
max_mean_word_chars            at most 40              unchanged    dotted names and calls are one word
min_alphabetic_words           at least 0.3            at least 0.4 operators, brackets and numbers stand alone
max_symbols_per_word           off                     unchanged    comments, directives and prompts begin with #
min_stop_words                 at least 1              unchanged    a function without prose has no two of them
min_terminal_lines             off                     off          statements and equations do not end as sentences do
max_short_lines                off                     at most 0.9  lines are short
max_lines_per_word             at most 0.6             at most 0.5  lines have few words
max_duplicate_lines            at most 0.5             unchanged    closing brackets and returns repeat
max_duplicate_line_chars       at most 0.3             unchanged
max_top_ngram_chars            1.5 times               1.5 times    idioms and steps of a derivation repeat
max_duplicate_ngram_chars      2 times                 1.5 times
============================== ======================= ============ ================================================

"At most" and "at least" only relax: a threshold that is already more lenient stays.

Listings in a how-to and tables in an article are no prose: a text that breaks such a rule is judged again without them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import cache
from itertools import chain
from typing import Any, ClassVar

from pydantic import Field, model_validator

from herdlm.base.recipe import Section
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.ngrams import NGrams
from herdlm.curate.orthography import (
    SENTENCES_END_IN_SPACES,
    UNSPACED,
    UNSPACED_WORD_CHARS,
    line_ends,
    sentence_ends,
    word_length_ratio,
)
from herdlm.curate.step import PageStep
from herdlm.curate.steps.dirty_words import dirty_words
from herdlm.curate.steps.domains.rules import CODE, MATHEMATICS
from herdlm.curate.stopwords import STOP_WORDS
from herdlm.curate.words import Words

BULLETS = tuple("•‣◦▪■●○·-*\u2013")
ELLIPSES = ("...", "…", "[...]", "[…]")
ELLIPSIS_ENDS = ".…]"  # their last characters
PLACEHOLDERS = ("lorem ipsum", "Lorem ipsum", "Lorem Ipsum", "LOREM IPSUM")
TOP_NGRAMS = (2, 3, 4)
DUPLICATE_NGRAMS = (5, 6, 7, 8, 9, 10)
# Rules that are judged without listings and tables if a text with such breaks them.
OF_PROSE = frozenset(
    (
        *("words_too_short", "words_too_long", "too_many_symbols", "too_few_alphabetic_words", "too_few_sentence_ends"),
        *("too_many_bullet_lines", "too_many_short_lines", "list_like", "duplicate_lines", "duplicate_paragraphs"),
        *(f"top_{n}_gram" for n in TOP_NGRAMS),
        *(f"duplicate_{n}_grams" for n in DUPLICATE_NGRAMS),
    )
)


class HeuristicsConfig(Section):
    """Thresholds of the rules below, which name the origin of each. Shares run from 0 to 1."""

    renamed: ClassVar = {
        "max_line_ngram_chars": "curate.repetitive_lines.max_ngram_chars",
        "repetitive_line_words": "curate.repetitive_lines.min_words",
    }

    min_words: int = Field(50, ge=0)
    max_words: int = Field(100_000, ge=1)
    min_mean_word_chars: float = Field(3.0, ge=0, description="for English; scaled for other languages")
    max_mean_word_chars: float = Field(10.0, gt=0, description="for English; scaled for other languages")
    min_stop_words: int = Field(2, ge=0, description="different stop words of the page's language")
    min_sentences: int = Field(3, ge=0, description="ends of sentences")
    drop_curly_brackets: bool = Field(False, description="as C4 does; it drops pages with code")
    min_alphabetic_words: float = Field(0.8, ge=0, le=1, description="share of words with a letter in them")
    max_symbols_per_word: float = Field(0.1, ge=0, description="'#' or ellipses per word")
    max_bullet_lines: float = Field(0.9, ge=0, le=1)
    max_ellipsis_lines: float = Field(0.3, ge=0, le=1)
    min_terminal_lines: float = Field(0.12, ge=0, le=1, description="share of lines that end as sentences do")
    max_short_lines: float = Field(0.67, ge=0, le=1)
    short_line_chars: int = Field(30, ge=1)
    max_lines_per_word: float = Field(0.3, ge=0)
    max_duplicate_lines: float = Field(0.3, ge=0, le=1)
    max_duplicate_line_chars: float = Field(0.2, ge=0, le=1)
    max_duplicate_paragraphs: float = Field(0.3, ge=0, le=1)
    max_duplicate_paragraph_chars: float = Field(0.2, ge=0, le=1)
    max_top_ngram_chars: tuple[float, float, float] = Field(
        (0.20, 0.18, 0.16), description="share of the text in its most common word 2-, 3- and 4-gram"
    )
    max_duplicate_ngram_chars: tuple[float, float, float, float, float, float] = Field(
        (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), description="share of the text in repeated word 5- to 10-grams"
    )
    max_dirty_words: float = Field(0.01, ge=0, le=1, description="share of the words; 1 turns the rule off")
    min_dirty_words: int = Field(3, ge=1, description="pages with fewer are kept")

    @model_validator(mode="after")
    def _some_length_is_allowed(self) -> HeuristicsConfig:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}")
        return self


class Heuristics(PageStep):
    """Drops texts by the first rule they break. Rules made for prose are relaxed for code and mathematics."""

    name, prose_only = "heuristics", True
    settings: HeuristicsConfig

    def run(self, batch: Batch) -> Outcome:
        rules = {domain: heuristics_for(domain, self.settings) for domain in set(batch["domain"])}
        listings = batch.get("listings") or [frozenset()] * len(batch["text"])
        pages = zip(batch["text"], batch["language"], batch["domain"], batch["split"], listings, strict=True)
        return Outcome(
            [check_text(text, language, rules[domain], words, lines) for text, language, domain, words, lines in pages]
        )


def check_text(
    text: str, language: str, config: HeuristicsConfig, words: Words | None = None, listings: Set[str] = frozenset()
) -> str | None:
    """Return the first rule that a text breaks, or None. Cheap rules are checked first.

    ``words`` are those of the text, if available. A text that breaks a rule about prose because of its tables and its
    ``listings``, the stripped lines of preformatted text, passes if enough prose is left without them that passes.
    """
    words = words or Words(text)
    reason = next((reason for reason, broken in _rules(text, words, language, config) if broken), None)
    if reason in OF_PROSE and (listings or "\t" in text):
        kept = [line for line in text.split("\n") if "\t" not in line and line.strip() not in listings]
        prose = "\n".join(kept)
        if len(prose) < len(text.rstrip()):
            reason = check_text(prose, language, config)
            reason = reason or next(
                (r for r, broken in _vocabulary_rules(text, words, language, config) if broken), None
            )
    return reason


def _rules(text: str, words: Words, language: str, config: HeuristicsConfig) -> Iterator[tuple[str, bool]]:
    return chain(
        _word_rules(text, words, language, config),
        _line_rules(text, words, language, config),
        _repetition_rules(words, language, config),
        _vocabulary_rules(text, words, language, config),
    )


def _word_rules(text: str, words: Words, language: str, config: HeuristicsConfig) -> Iterator[tuple[str, bool]]:
    count = words.count
    yield "too_few_words", count < config.min_words  # [G]
    yield "too_many_words", count > config.max_words  # [G]
    if language not in UNSPACED:
        mean = words.chars / max(count, 1) / word_length_ratio(language)
        yield "words_too_short", mean < config.min_mean_word_chars  # [G]
        yield "words_too_long", mean > config.max_mean_word_chars  # [G]
    symbols = max(text.count("#"), text.count("...") + text.count("…"))
    yield "too_many_symbols", symbols > config.max_symbols_per_word * count  # [G]
    yield "too_few_alphabetic_words", _lacks_letters(words, config.min_alphabetic_words * count)  # [G]
    yield "too_few_stop_words", _lacks_stop_words(words, language, config.min_stop_words)  # [G]
    yield "placeholder_text", any(map(text.__contains__, PLACEHOLDERS))  # [C]
    yield "curly_brackets", config.drop_curly_brackets and "{" in text  # [C]


def _lacks_letters(words: Words, least: float) -> bool:
    """Return whether fewer than ``least`` words have a letter. Most that do begin with one."""
    first = [word[0].isalpha() for word in words.unique]
    if int(words.often[first].sum()) >= least:
        return False
    return int(words.often[[any(map(str.isalpha, word)) for word in words.unique]].sum()) < least


def _lacks_stop_words(words: Words, language: str, least: int) -> bool:
    """Return whether a text has fewer than ``least`` different stop words, or False if its language has no list."""
    stop_words = STOP_WORDS.get(language)
    if stop_words is None or sum(map(words.unique.__contains__, stop_words)) >= least:
        return False
    return len(stop_words.intersection(words.lowered)) < least


def _line_rules(text: str, words: Words, language: str, config: HeuristicsConfig) -> Iterator[tuple[str, bool]]:
    lines = words.lines
    count = len(lines)
    firsts, lasts = Counter([line[0] for line in lines]), Counter([line[-1] for line in lines])
    bullets = sum([firsts[bullet] for bullet in BULLETS])
    yield "too_many_bullet_lines", bullets > config.max_bullet_lines * count  # [G]
    ellipses = sum([line[-1] in ELLIPSIS_ENDS and line.endswith(ELLIPSES) for line in lines])
    yield "too_many_ellipsis_lines", ellipses > config.max_ellipsis_lines * count  # [G]
    if language not in SENTENCES_END_IN_SPACES:
        ends = sum([lasts[end] for end in _line_ends(language)])
        yield "too_few_sentence_ends", ends < config.min_terminal_lines * count  # [F], after [C]
    short = sum([len(line) < config.short_line_chars for line in lines])
    yield "too_many_short_lines", short > config.max_short_lines * count  # [F]
    yield "list_like", count > config.max_lines_per_word * words.count  # [F]
    if language not in SENTENCES_END_IN_SPACES:
        yield "too_few_sentences", sum(map(text.count, sentence_ends(language))) < config.min_sentences  # [C]
    paragraphs = [paragraph for raw in text.split("\n\n") if (paragraph := raw.strip())]
    for reason, parts, max_parts, max_chars in (
        ("duplicate_lines", lines, config.max_duplicate_lines, config.max_duplicate_line_chars),
        ("duplicate_paragraphs", paragraphs, config.max_duplicate_paragraphs, config.max_duplicate_paragraph_chars),
    ):
        repeats, chars = _repeated(parts)
        yield reason, repeats > max_parts * len(parts) or chars > max_chars * len(text)  # [R]


_line_ends = cache(line_ends)


def _repeated(parts: Sequence[str]) -> tuple[int, int]:
    """Return how many parts repeat an earlier one, and how many characters they have."""
    if len(set(parts)) == len(parts):
        return 0, 0
    extra = {part: count - 1 for part, count in Counter(parts).items() if count > 1}
    return sum(extra.values()), sum(len(part) * count for part, count in extra.items())


def _repetition_rules(words: Words, language: str, config: HeuristicsConfig) -> Iterator[tuple[str, bool]]:
    size = UNSPACED_WORD_CHARS if language in UNSPACED else 1
    grams = NGrams(words.ids, words.lengths)
    for n, share in zip(TOP_NGRAMS, config.max_top_ngram_chars, strict=True):
        yield f"top_{n}_gram", grams.top_chars_exceed(n * size, share * words.chars)  # [R]
    shares = config.max_duplicate_ngram_chars
    for i, n in enumerate(DUPLICATE_NGRAMS):
        covered = grams.duplicate_chars(n * size)
        yield f"duplicate_{n}_grams", covered > shares[i] * words.chars  # [R]
        if covered <= min(shares[i:]) * words.chars:
            return  # shorter n-grams cover whatever longer ones do


def _vocabulary_rules(text: str, words: Words, language: str, config: HeuristicsConfig) -> Iterator[tuple[str, bool]]:
    if config.max_dirty_words < 1:
        dirty = dirty_words(text, language, words)
        many = dirty >= config.min_dirty_words and dirty > config.max_dirty_words * words.count
        yield "too_many_dirty_words", many  # [L]


Relax = Callable[[Any], Any]


def _at_most(limit: float) -> Relax:
    return lambda value: max(value, limit)


def _at_least(limit: float) -> Relax:
    return lambda value: min(value, limit)


def _times(factor: float) -> Relax:
    return lambda values: tuple(min(value * factor, 1.0) for value in values)


RELAXED: Mapping[str, Mapping[str, Relax]] = {
    CODE: {
        "min_mean_word_chars": _at_least(0.0),
        "max_mean_word_chars": _at_most(40.0),
        "min_alphabetic_words": _at_least(0.3),
        "max_symbols_per_word": _at_most(1.0),
        "min_stop_words": _at_least(1),
        "min_terminal_lines": _at_least(0.0),
        "max_short_lines": _at_most(1.0),
        "max_lines_per_word": _at_most(0.6),
        "max_duplicate_lines": _at_most(0.5),
        "max_duplicate_line_chars": _at_most(0.3),
        "max_top_ngram_chars": _times(1.5),
        "max_duplicate_ngram_chars": _times(2.0),
    },
    MATHEMATICS: {
        "min_mean_word_chars": _at_least(0.0),
        "min_alphabetic_words": _at_least(0.4),
        "min_terminal_lines": _at_least(0.0),
        "max_short_lines": _at_most(0.9),
        "max_lines_per_word": _at_most(0.5),
        "max_top_ngram_chars": _times(1.5),
        "max_duplicate_ngram_chars": _times(1.5),
    },
}


def heuristics_for(domain: str, config: HeuristicsConfig) -> HeuristicsConfig:
    """Return the thresholds for a domain: ``config``, relaxed as in the table above."""
    relaxed = RELAXED.get(domain, {})
    changes = {key: relax(getattr(config, key)) for key, relax in relaxed.items()}
    return config.model_copy(update=changes)
