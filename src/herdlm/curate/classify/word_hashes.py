"""Cached hashes of words that are the same in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

CACHED_WORDS = 1_000_000


class WordHashes(dict[str, int]):
    """Maps a word to a 64-bit hash of ``spell(word)``. The cache is cleared when it has ``CACHED_WORDS``.

    The lowest bit is ``mark(word)``, so that arrays of hashes carry it.
    """

    def __init__(self, spell: Callable[[str], str] = str, mark: Callable[[str], bool] = lambda word: False) -> None:
        super().__init__()
        self._spell, self._mark = spell, mark

    def __missing__(self, word: str) -> int:
        if len(self) >= CACHED_WORDS:
            self.clear()
        spelt = self._spell(word).encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.blake2b(spelt, digest_size=8).digest(), "little")
        self[word] = number = number & ~1 | self._mark(word)
        return number

    def of(self, words: Sequence[str]) -> NDArray[np.uint64]:
        """Return the hashes of ``words``: uint64 (N,)."""
        return np.fromiter(map(self.__getitem__, words), np.uint64, len(words))
