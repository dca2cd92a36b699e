"""Finds which blocks of a page are its content, from the page's true text."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from herdlm.curate.steps.extract.block_statistics import Bools
from herdlm.curate.steps.extract.blocks import Blocks

_WORD = re.compile(r"\w+")
RUN = 4  # words
COVERED, PLAUSIBLE, WIDEST = 0.5, 0.7, 400  # shares of words; blocks of a container
GAIN = 1e-9


def find_content(page: Blocks, true_text: str, rounds: int = 3) -> Bools:
    """Return the blocks whose words together come closest to those of ``true_text`` by F1, found by switching.

    The start are the blocks most of whose words are in runs of four that the true text has too. A block is switched on
    only if its pairs of words or its whole line are in the true text, a container if most of its words are missing.
    """
    own = [_WORD.findall(text.lower()) for text in page.text]
    true_words = _WORD.findall(true_text.lower())
    true_lines = {" ".join(_WORD.findall(line.lower())) for line in true_text.split("\n")}
    covered, paired = _covered(own, true_words, RUN), _covered(own, true_words, 2)
    likely = (paired >= 0.6) | (covered >= COVERED) | np.array([" ".join(words) in true_lines for words in own])
    search = _Search([Counter(words) for words in own], Counter(true_words), covered >= COVERED)
    spans = sorted({(a, b) for a, b in zip(page.first, page.last, strict=True) if 2 <= b - a <= WIDEST})
    for _ in range(rounds):
        before = search.f1
        for block, words in enumerate(own):
            if words and (search.picked[block] or likely[block]):
                search.switch([block], not search.picked[block])
        for low, high in spans:
            missing = [block for block in range(low, high) if not search.picked[block]]
            if missing and search.plausible(missing):
                search.switch(missing, True)
        if search.f1 <= before + GAIN:
            break
    return search.picked


def _covered(own: list[list[str]], true_words: list[str], run: int) -> np.ndarray:
    """Return the share of each block's words in runs of words, also across blocks, that the true text has."""
    stream = [word for words in own for word in words]
    runs = {tuple(true_words[at : at + run]) for at in range(len(true_words) - run + 1)}
    found = np.zeros(len(stream), bool)
    for at in range(len(stream) - run + 1):
        if tuple(stream[at : at + run]) in runs:
            found[at : at + run] = True
    sums = np.concatenate(([0], np.cumsum(found)))
    ends = np.cumsum([len(words) for words in own], dtype=np.int64)
    starts = ends - [len(words) for words in own]
    shares: np.ndarray = (sums[ends] - sums[starts]) / np.maximum(ends - starts, 1)
    return shares


class _Search:
    """The picked blocks, and the F1 of their words."""

    def __init__(self, bags: list[Counter[str]], true: Counter[str], picked: Bools) -> None:
        self.bags, self.true, self.picked = bags, true, picked.copy()
        self.have: Counter[str] = Counter()
        for block in np.flatnonzero(picked).tolist():
            self.have.update(bags[block])
        self.size, self.common = self.have.total(), (self.have & true).total()
        self.all_true = true.total()
        self.f1 = self._f1(self.common, self.size)

    def _f1(self, common: int, size: int) -> float:
        return 2 * common / max(size + self.all_true, 1)

    def plausible(self, blocks: list[int]) -> bool:
        """Return whether most words of the blocks are missing in what is picked."""
        bag = self._bag(blocks)
        return bool(bag) and self._gain(bag, 1) >= PLAUSIBLE * bag.total()

    def _bag(self, blocks: list[int]) -> Counter[str]:
        bag: Counter[str] = Counter()
        for block in blocks:
            bag.update(self.bags[block])
        return bag

    def _gain(self, bag: Counter[str], sign: int) -> int:
        have, true = self.have, self.true
        return sum(min(have[w] + sign * k, true[w]) - min(have[w], true[w]) for w, k in bag.items())

    def switch(self, blocks: list[int], on: bool) -> None:
        """Switch blocks on or off if that raises F1."""
        bag, sign = self._bag(blocks), 1 if on else -1
        common, size = self.common + self._gain(bag, sign), self.size + sign * bag.total()
        new = self._f1(common, size)
        if new > self.f1 + GAIN:
            self.picked[blocks] = on
            self.common, self.size, self.f1 = common, size, new
            for word, times in bag.items():
                self.have[word] += sign * times
