"""Thins out phrases that the data over-uses, such as "I hope this helps".

What is over-used is counted, not listed. A phrase is a run of words that opens or ends a sentence of prose. It is
over-used if more than ``max_share`` of the answers have it, and it is fixed: it is found far more often than its words
would meet by chance at the rates of the data, which tells "I hope this helps" from "it is a". A phrase that most
answers of a single topic have is that topic's form, such as "The answer is", and stays. Of the answers with an
over-used phrase, the best stay, up to the share.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from pydantic import Field

from herdlm.align.quality.example import Example
from herdlm.align.quality.step import Drop, Shared, Step
from herdlm.base.recipe import Section

WORDS = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
SENTENCE = re.compile(r"(?<=[.!?:。\uff01\uff1f])\s+|\n+")
Gram = tuple[str, ...]


class PhrasesConfig(Section):
    """Phrases that the data over-uses."""

    words: int = Field(4, ge=2, description="words of a phrase")
    max_share: float = Field(0.03, gt=0, lt=1, description="most answers that may have a phrase")
    min_count: int = Field(10, ge=1, description="phrases in fewer answers are never over-used")
    min_lift: float = Field(20.0, gt=1, description="how much more often than by chance a fixed phrase is found")
    form_share: float = Field(
        0.5, gt=0, le=1, description="a phrase in this share of one topic's answers, and in no other's, is its form"
    )
    keep: tuple[str, ...] = Field(
        ("the answer is", "the final answer is"), description="beginnings of phrases that are never over-used"
    )


class Phrases(Step):
    """Phrases that more answers have than should."""

    name = "phrases"
    config: PhrasesConfig

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """See :meth:`Step.run`."""
        having: dict[Gram, list[int]] = defaultdict(list)
        sentences = [[WORDS.findall(part.lower()) for part in _sentences(example)] for example in examples]
        for number, own in enumerate(sentences):
            for phrase in {gram for words in own for gram in self._edges(words)}:
                having[phrase].append(number)
        answers = sum(bool(example.turns) for example in examples)
        most = max(math.floor(self.config.max_share * answers), self.config.min_count - 1)
        lifts = _Lifts((words for own in sentences for words in own), self.config.words)
        keep = [tuple(WORDS.findall(phrase.lower())) for phrase in self.config.keep]
        common = [
            phrase
            for phrase, numbers in having.items()
            if len(numbers) > most
            and not any(phrase[: len(kept)] == kept for kept in keep)
            and lifts.of(phrase) >= self.config.min_lift
            and not self._is_form([examples[n].topic for n in numbers], examples)
        ]
        drops: list[Drop | None] = [None] * len(examples)
        found = {}
        for phrase in sorted(common, key=lambda phrase: (-len(having[phrase]), phrase)):
            left = [number for number in having[phrase] if drops[number] is None]
            found[" ".join(phrase)] = len(having[phrase])
            for number in sorted(left, key=lambda n: examples[n].preference)[most:]:
                drops[number] = Drop("over-used phrase", " ".join(phrase))
        shared.report[self.name] = {"over_used": found, "most": most}
        return drops

    def _edges(self, words: Sequence[str]) -> Iterable[Gram]:
        n = self.config.words
        return (tuple(words[:n]), tuple(words[-n:])) if len(words) >= n else ()

    def _is_form(self, topics: Sequence[str], examples: Sequence[Example]) -> bool:
        """Whether a phrase in these topics' answers is the form of one of them."""
        topic, count = Counter(topics).most_common(1)[0]
        whole = sum(example.topic == topic for example in examples)
        return count >= 0.9 * len(topics) and count >= self.config.form_share * whole


def _sentences(example: Example) -> Iterable[str]:
    return (part for turn in example.turns for part in SENTENCE.split(turn.prose) if part)


class _Lifts:
    """How much more often n-grams occur than if words came independently, as a factor for each word after the first."""

    def __init__(self, sentences: Iterable[Sequence[str]], n: int) -> None:
        self.words: Counter[str] = Counter()
        self.grams: Counter[Gram] = Counter()
        for words in sentences:
            self.words.update(words)
            self.grams.update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    def of(self, phrase: Gram) -> float:
        """(observed / expected) ** (1 / (n - 1))."""
        total = self.words.total()
        expected = total * math.prod(self.words[word] / total for word in phrase)
        return float((self.grams[phrase] / expected) ** (1 / (len(phrase) - 1)))
