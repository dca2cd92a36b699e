"""Repeated word n-grams of a text, for the repetition rules of Gopher (Rae et al. 2021, appendix A.1.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return well-spread 64-bit values of small numbers, by the finalizer of splitmix64 (Steele et al. 2014)."""
    values = (values + np.uint64(1)) * _MULTIPLIER
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class NGrams:
    """The n-grams of words numbered ``ids`` (int64[N], from 0) with ``lengths`` characters (int64[N]).

    An n-gram is identified by a 64-bit polynomial hash of its words' mixed numbers: among a million n-grams, two
    different ones collide with probability 3e-8. An n-gram occurs at most as often as its rarest word, which settles
    most questions before anything is sorted. Sizes must be asked for in ascending order.
    """

    def __init__(self, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        self._lengths = lengths
        self._sums = np.concatenate([[0], np.cumsum(lengths)])
        self._words = _mix(ids.astype(np.uint64))
        self._counts = np.bincount(ids)[ids] if len(ids) else ids
        self._rarest, self._span = self._counts, 1
        self._candidates: NDArray[np.int64] | None = None

    def _hashes_of(self, n: int, places: NDArray[np.int64]) -> NDArray[np.uint64]:
        hashes = self._words[places]
        for k in range(1, n):
            hashes = hashes * _MULTIPLIER + self._words[places + k]
        return hashes

    def _counts_of_rarest(self, n: int) -> NDArray[np.int64]:
        """Return how often the rarest word of each n-gram occurs."""
        assert n >= self._span, "sizes must ascend"
        while self._span < n:
            self._rarest = np.minimum(self._rarest[:-1], self._counts[self._span :])
            self._span += 1
        return self._rarest

    def top_chars_exceed(self, n: int, limit: float) -> bool:
        """Return whether the occurrences of the most common n-gram have more than ``limit`` characters without spaces.

        Of equally common n-grams the first counts. An n-gram that occurs once is not a repetition.
        """
        if len(self._words) <= n:
            return False
        chars = self._sums[n:] - self._sums[:-n]
        if int((self._counts_of_rarest(n) * chars).max()) <= limit:
            return False
        hashes = self._hashes_of(n, np.arange(len(chars)))
        ordered = np.sort(hashes)
        edges = np.empty(len(ordered) + 1, bool)
        edges[0] = edges[-1] = True
        np.not_equal(ordered[1:], ordered[:-1], out=edges[1:-1])
        bounds = np.flatnonzero(edges)
        starts, counts = bounds[:-1], bounds[1:] - bounds[:-1]
        most = int(counts.max())
        if most < 2 or most * int(chars.max()) <= limit:
            return False
        commonest = ordered[starts[counts == most]]
        first = int(np.flatnonzero(np.isin(hashes, commonest))[0])
        return most * int(chars[first]) > limit

    def duplicate_chars(self, n: int) -> int:
        """Return the number of characters of the words in n-grams that occurred before, counting each word once."""
        if len(self._words) <= n:
            return 0
        rarest = self._counts_of_rarest(n)
        if self._candidates is None:
            places = np.flatnonzero(rarest > 1)
        else:  # only n-grams that repeated at the size before can repeat at this one
            places = self._candidates[self._candidates < len(rarest)]
        hashes = self._hashes_of(n, places)
        order = np.argsort(hashes)
        ordered = hashes[order]
        begins = np.ones(len(ordered), bool)  # runs of equal hashes
        np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
        again = np.flatnonzero(~begins)
        if not len(again):
            self._candidates = places[:0]
            return 0
        later = np.zeros(len(places), bool)
        later[order[again]] = later[order[again - 1]] = True
        self._candidates = places[later]
        later[np.minimum.reduceat(order, np.flatnonzero(begins))] = False
        starts = places[later]
        edges = np.zeros(len(self._words) + 1, np.int64)
        edges[starts] += 1  # starts are distinct
        edges[starts + n] -= 1
        return int(self._lengths[np.cumsum(edges[:-1]) > 0].sum())
