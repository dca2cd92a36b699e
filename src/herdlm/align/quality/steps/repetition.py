"""Drops answers that run in circles, and answers that only repeat the prompt."""

from __future__ import annotations

import re
from collections import Counter

from pydantic import Field

from herdlm.align.quality.example import Example, Turn
from herdlm.align.quality.step import Drop, TurnRule
from herdlm.base.recipe import Section
from herdlm.curate.ngrams import NGrams
from herdlm.curate.words import Words

PARTS = re.compile(r"(?<=[.!?。\uff01\uff1f])\s+|\n+")
ASKS = re.compile(
    r"\b(?:repeat|repetit|copy|verbatim|quote|chant|refrain|chorus|song|lyrics|poem|proofread|correct|rewrite|edit|"
    r"rephrase|paraphrase|spell|punctuat\w*|grammar|times)\b",
    re.I,
)
NGRAM = 5


class RepetitionConfig(Section):
    """Answers that repeat themselves or the prompt."""

    max_same: int = Field(3, ge=1, description="most times that a sentence may occur that makes up max_share")
    max_share: float = Field(0.5, gt=0, le=1, description="most characters in 5-grams of words that occurred before")
    min_words: int = Field(60, ge=6, description="shorter answers are not judged by their 5-grams")


class Repetition(TurnRule):
    """The same sentence again and again, many equal 5-grams, or the prompt in place of an answer."""

    name = "repetition"
    config: RepetitionConfig

    def judge(self, turn: Turn, example: Example) -> Drop | None:
        """See :meth:`TurnRule.judge`."""
        if turn.calls or ASKS.search(turn.asked):
            return None
        if len(turn.answer.split()) > 5 and _plain(turn.answer) == _plain(turn.asked):
            return Drop("repeats the prompt")
        parts = Counter(part for each in PARTS.split(turn.prose) if len((part := _plain(each)).split()) > 3)
        sentence, count = max(parts.items(), key=lambda item: (item[1] * len(item[0]), item[0]), default=("", 0))
        if count > self.config.max_same and count * len(sentence) > self.config.max_share * len(_plain(turn.prose)):
            return Drop("a sentence again and again", f"{count} times: {sentence[:60]}")
        words = Words(_plain(turn.prose))
        if words.count >= self.config.min_words:
            share = NGrams(words.ids, words.lengths).duplicate_chars(NGRAM) / max(int(words.lengths.sum()), 1)
            if share > self.config.max_share:
                return Drop("repeated 5-grams", f"{share:.0%}")
        return None


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]+", " ", text.lower()).split())
