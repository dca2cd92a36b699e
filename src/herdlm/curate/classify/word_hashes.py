"""Hashes of words that are the same in every process, remembered: a word met before costs one look-up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

REMEMBERED_WORDS = 1_000_000


class WordHashes(dict[str, int]):
    """Word -> 64-bit hash of ``spell(word)``. Forgets all at once when it knows ``REMEMBERED_WORDS``.

    The lowest bit is ``mark(word)``, so that arrays of hashes can be told apart by it.
    """

    def __init__(self, spell: Callable[[str], str] = str, mark: Callable[[str], bool] = lambda word: False) -> None:
        super().__init__()
        self._spell, self._mark = spell, mark

    def __missing__(self, word: str) -> int:
        if len(self) >= REMEMBERED_WORDS:
            self.clear()
        spelt = self._spell(word).encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.blake2b(spelt, digest_size=8).digest(), "little")
        self[word] = number = number & ~1 | self._mark(word)
        return number

    def of(self, words: Sequence[str]) -> NDArray[np.uint64]:
        """The hashes of ``words``: uint64 (N,)."""
        return np.fromiter(map(self.__getitem__, words), np.uint64, len(words))
