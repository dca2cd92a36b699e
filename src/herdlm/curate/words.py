"""Splits text into words: runs of non-spaces, and single characters in scripts written without spaces.

In Thai, Lao, Khmer, Burmese and Tibetan, a character is a letter with its marks.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache, cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

# Hiragana, Katakana, Han, half-width Katakana, and Han beyond the first plane. Not Hangul, since Korean has spaces.
_EAST = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f"
_SOUTH_EAST = "\u0e00-\u0eff\u0f40-\u0fbc\u1000-\u109f\u1780-\u17ff"


def _marks(first: int, last: int) -> str:
    """Return the combining marks in a range of code points, for use in a character class."""
    return "".join(re.escape(chr(c)) for c in range(first, last + 1) if unicodedata.category(chr(c)).startswith("M"))


_SOUTH_EAST_MARKS = _marks(0xE00, 0x10A0) + _marks(0x1780, 0x17FF)
_ANY_UNSPACED = re.compile(f"[{_EAST}{_SOUTH_EAST}]")
_WORD = re.compile(f"[{_EAST}]|[{_SOUTH_EAST}][{_SOUTH_EAST_MARKS}]*|[^\\s{_EAST}{_SOUTH_EAST}]+")
# Anything but letters, digits and marks. Python's ``\w`` excludes the vowel signs of Indic and other scripts.
_SEPARATORS = re.compile(f"(?:(?![{_marks(0x300, 0x20FF)}])[\\W_])+")
_ASCII = bytes(c if chr(c).isalnum() or chr(c) == "\n" else 0x20 for c in range(256))
_ALL_ASCII = bytes(range(0x80))
_NO_ASCII_LETTERS = bytes(c for c in range(256) if not chr(c).isalpha() or c >= 0x80)


def is_spaced(text: str) -> bool:
    """Return whether spaces separate all words of a text."""
    return text.isascii() or not _ANY_UNSPACED.search(beyond_ascii(text))


def split_words(text: str) -> list[str]:
    """Return the words of a text in order."""
    return text.split() if is_spaced(text) else _WORD.findall(text)


class Words:
    """The words and lines of a text, split and numbered once for all steps that read the text.

    A word's number is the index of its first occurrence. ``ids`` and ``lengths`` (characters) are int64[N].
    ``unique`` maps each word to its number, in order of appearance.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.spaced = is_spaced(text)
        self.list = text.split() if self.spaced else _WORD.findall(text)
        self.count = len(self.list)

    @cached_property
    def _numbered(self) -> tuple[dict[str, int], NDArray[np.int64]]:
        unique: dict[str, int] = {}
        ids = np.fromiter(map(unique.setdefault, self.list, range(self.count)), np.int64, self.count)
        return unique, ids

    @property
    def unique(self) -> dict[str, int]:
        return self._numbered[0]

    @property
    def ids(self) -> NDArray[np.int64]:
        return self._numbered[1]

    @cached_property
    def _first(self) -> NDArray[np.int64]:
        return np.fromiter(self.unique.values(), np.int64, len(self.unique))

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return self.spread(np.fromiter(map(len, self.unique), np.int64, len(self.unique)))

    @cached_property
    def chars(self) -> int:
        """The number of characters in all words."""
        return int(self.lengths.sum())

    @cached_property
    def often(self) -> NDArray[np.int64]:
        """How often each unique word occurs, int64[U]."""
        counts: NDArray[np.int64] = np.bincount(self.ids, minlength=1)[self._first]
        return counts

    @cached_property
    def lowered(self) -> list[str]:
        """The unique words in lower case, [U]. Two can be equal."""
        return list(map(str.lower, self.unique))

    @cached_property
    def lines(self) -> list[str]:
        """The lines that are not blank, without surrounding space."""
        return [line for raw in self.text.split("\n") if (line := raw.strip())]

    @cached_property
    def _normalized(self) -> list[list[str]]:
        return _split_lines(self.text)

    @cached_property
    def normalized_lines(self) -> list[str]:
        """The lines by :func:`normalize_lines`."""
        return list(map(" ".join, self._normalized))

    @property
    def normalized(self) -> list[str]:
        """The words of the text by :func:`normalize`."""
        return list(chain.from_iterable(self._normalized))

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The different words of :attr:`normalized`."""
        return frozenset(self.normalized)

    def spread(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Spread values of the unique words over all words in order."""
        table = np.zeros(self.count, np.int64)
        table[self._first] = values
        return table[self.ids]


def beyond_ascii(text: str) -> str:
    """Return the non-ASCII characters of a text in order."""
    raw = text.encode("utf-8", "surrogatepass").translate(None, _ALL_ASCII)
    return raw.decode("utf-8", "surrogatepass")


def count_letters(text: str) -> int:
    """Return the number of letters in a text."""
    if text.isascii():
        return len(text.encode().translate(None, _NO_ASCII_LETTERS))
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw.translate(None, _NO_ASCII_LETTERS)) + sum(map(str.isalpha, beyond_ascii(text)))


def normalize(text: str) -> str:
    """Return the words of a text in lower case with single spaces, without anything but letters, marks and digits.

    Texts that only differ in case, spacing or punctuation become equal.
    """
    return " ".join(filter(None, normalize_lines(text)))


def normalize_lines(text: str) -> list[str]:
    """Normalize each line of a text as :func:`normalize` does. The non-empty ones, joined by spaces, are all of it."""
    return list(map(" ".join, _split_lines(text)))


def _split_lines(text: str) -> list[list[str]]:
    """Return the words of each line of a text by :func:`normalize`."""
    if text.isascii():
        return list(map(str.split, text.lower().encode().translate(_ASCII).decode().split("\n")))
    # A table is ten times as fast as ``str.lower`` and a regular expression with large classes.
    codes = _normal()[_codes(text)]
    found = int(np.bitwise_or.reduce(codes))
    if found & _IN_CONTEXT:
        codes = _normal()[_codes(text.lower())]
    if found & _UNSPACED:
        separated = (codes & _CODE).tobytes().decode("utf-32-le", "surrogatepass")
        return list(map(split_words, separated.split("\n")))
    return list(map(str.split, codes.tobytes().decode("utf-32-le", "surrogatepass").split("\n")))


_UNSPACED, _IN_CONTEXT, _CODE = 1 << 31, 1 << 30, np.uint32((1 << 21) - 1)


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@cache
def _normal() -> NDArray[np.uint32]:
    """Map every code point to its lower case, or to a space if it separates words. Line ends stay.

    ``_UNSPACED`` is set if the character is a word by itself, ``_IN_CONTEXT`` if its lower case is more than one
    character or depends on the characters around it.
    """
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    lowered = everything.replace("\u0130", "i").lower()  # the only character whose lower case has two
    codes = _codes(lowered).copy()
    for found in _ANY_UNSPACED.finditer(lowered):
        codes[found.start() : found.end()] |= np.uint32(_UNSPACED)
    for found in _SEPARATORS.finditer(lowered):
        codes[found.start() : found.end()] = 0x20
    codes[ord("\n")] = ord("\n")
    codes[[0x130, 0x3A3]] = _IN_CONTEXT
    return codes
