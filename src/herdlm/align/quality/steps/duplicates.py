"""Drops duplicates: equal texts, and texts that share most word n-grams by MinHash. The best of them stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from herdlm.align.quality.example import Example
from herdlm.align.quality.step import Drop, Shared, Step
from herdlm.base.recipe import Section
from herdlm.curate.duplicates.hashing import hash_text
from herdlm.curate.steps.near_duplicates.minhash import NearDuplicatesConfig, band_keys, fingerprint, similarity
from herdlm.curate.words import normalize, split_words


class ExactConfig(Section):
    """Equal examples."""

    same_prompt: int | None = Field(None, ge=1, description="most different answers to equal prompts; none: any number")


class NearConfig(NearDuplicatesConfig):
    """Nearly equal examples, prompt and answers together."""

    ngram_words: int = Field(3, ge=1, description="words of an n-gram; chats are shorter than pages")
    min_similarity: float = Field(0.8, gt=0, le=1, description="Jaccard similarity of the sets of n-grams")
    min_answer_similarity: float = Field(
        0.5, ge=0, le=1, description="the same of the answers alone: one text can be asked about twice"
    )


class Exact(Step):
    """Examples whose texts are equal but for case, spaces and punctuation."""

    name = "exact"
    config: ExactConfig

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """See :meth:`Step.run`."""
        drops: list[Drop | None] = [None] * len(examples)
        firsts: dict[object, Example] = {}
        prompts: dict[str, list[Example]] = defaultdict(list)
        for number in sorted(range(len(examples)), key=lambda n: examples[n].preference):
            example = examples[number]
            same, asked = _text(example), normalize(example.asked)
            if same in firsts:
                drops[number] = Drop("equal", of=firsts[same].key)
                continue
            if self.config.same_prompt and len(prompts[asked]) >= self.config.same_prompt:
                drops[number] = Drop("prompt has answers enough", of=prompts[asked][0].key)
                continue
            firsts[same] = example
            prompts[asked].append(example)
        return drops


class Near(Step):
    """Examples that are nearly equal to a better one that stays."""

    name = "near"
    config: NearConfig

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """See :meth:`Step.run`."""
        if not examples:
            return []
        found = [fingerprint(split_words(normalize(example.text)), self.config) for example in examples]
        signatures, sketches = (np.stack(part) for part in zip(*found, strict=True))
        keys = band_keys(signatures, self.config.bands).tolist()
        answers = [_grams(" ".join(turn.answer for turn in e.turns), self.config.ngram_words) for e in examples]
        drops: list[Drop | None] = [None] * len(examples)
        buckets: dict[int, list[int]] = defaultdict(list)  # those that stay, by band
        for number in sorted(range(len(examples)), key=lambda n: examples[n].preference):
            candidates = sorted({other for key in keys[number] for other in buckets[key]})
            near = [n for n in self._similar(number, candidates, sketches) if self._same(answers[n], answers[number])]
            if near:
                drops[number] = Drop("nearly equal", of=examples[near[0]].key)
                continue
            for key in keys[number]:
                buckets[key].append(number)
        return drops

    def _similar(self, number: int, candidates: list[int], sketches: NDArray[np.uint8]) -> list[int]:
        """Those of the candidates whose texts are similar enough."""
        if not candidates:
            return []
        own = np.broadcast_to(sketches[number], (len(candidates), sketches.shape[1]))
        found = similarity(sketches[candidates], own) >= self.config.min_similarity
        return [other for other, near in zip(candidates, found.tolist(), strict=True) if near]

    def _same(self, one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> bool:
        return len(one & other) >= self.config.min_answer_similarity * len(one | other)


def _grams(text: str, n: int) -> set[tuple[str, ...]]:
    words = split_words(normalize(text))
    return {tuple(words[i : i + n]) for i in range(max(len(words) - n + 1, 1))}


def _text(example: Example) -> tuple[object, ...]:
    calls = [message.get("tool_calls") for message in example.messages if message.get("tool_calls")]
    return normalize(example.text), example.text.count("\n```"), hash_text(repr((calls, example.row.get("tools"))))
