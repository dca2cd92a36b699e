"""Features of the linear classifiers: hashed words and word pairs, as in fastText (Joulin et al. 2016, section 2.3).

In scripts written without spaces, runs of up to three characters are features as well.

A text becomes bucket numbers, ``SLOTS`` per word: the word, and the pair and the triple of characters that begin with
it. An unused slot (the last word begins no pair) holds ``buckets``, the number of an empty bucket. Word hashes are
cached.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from herdlm.curate.classify.word_hashes import WordHashes

SLOTS = 3

# Scripts without spaces between words: Thai to Tibetan, Burmese, Khmer, Kana, Han, half-width Katakana, Han beyond the
# first plane. Their characters are treated as words.
_CHARACTERS = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003134f"
)
_ANY_CHARACTER = re.compile(f"[{_CHARACTERS}]")
_WORD = re.compile(f"[{_CHARACTERS}]|[^\\s{_CHARACTERS}]+")
_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)
_TURN, _REST = np.uint64(23), np.uint64(41)


class Hasher:
    """Maps texts to bucket numbers: ``2 ** bits`` buckets, the first ``max_words`` words of a text."""

    def __init__(self, bits: int, max_words: int) -> None:
        self.buckets, self.max_words = 2**bits, max_words
        self._shift = np.uint64(64 - bits)
        self._words = WordHashes(_spell, _is_character)

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ``ids``, bucket numbers (SLOTS * words of all texts), and ``starts``, where each text's begin (N,).

        A text without words has one row of empty buckets, so that every text has something to sum.
        """
        split = [self._split(text) for text in texts]
        counts = np.fromiter((max(len(words), 1) for words in split), np.int64, len(split))
        starts = np.cumsum(counts) - counts
        ids = np.full((int(counts.sum()), SLOTS), self.buckets, np.int64)
        for words, start in zip(split, starts.tolist(), strict=True):
            if words:
                self._fill(ids[start : start + len(words)], self._words.of(words))
        return ids.ravel(), starts * SLOTS

    def _split(self, text: str) -> list[str]:
        if text.isascii() or not _ANY_CHARACTER.search(text):
            return text.split(None, self.max_words)[: self.max_words]
        return _WORD.findall(text)[: self.max_words]

    def _fill(self, ids: NDArray[np.int64], words: NDArray[np.uint64]) -> None:
        ids[:, 0] = (words * _MULTIPLY) >> self._shift
        pairs = _join(words[:-1], words[1:])
        ids[:-1, 1] = (pairs * _MULTIPLY) >> self._shift
        alone = (words & np.uint64(1)).astype(bool)
        at = np.flatnonzero(alone[:-2] & alone[1:-1] & alone[2:])
        if len(at):
            ids[at, 2] = (_join(pairs[at], words[at + 2]) * _MULTIPLY) >> self._shift


def _spell(word: str) -> str:
    """Return the spelling that is hashed: case is ignored, and all digits are equal."""
    lower = word.lower()
    return lower if lower.isalpha() else "".join("0" if c.isdigit() else c for c in lower)


def _is_character(word: str) -> bool:
    return len(word) == 1 and _ANY_CHARACTER.match(word) is not None


def _join(first: NDArray[np.uint64], then: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return one hash of two in this order."""
    mixed = (first ^ (first >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed << _TURN | mixed >> _REST) ^ then
