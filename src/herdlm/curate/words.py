"""What counts as a word: a run of non-spaces, and every character of the scripts that are written without spaces.

In Thai, Lao, Khmer, Burmese and Tibetan a character is a letter together with the marks that belong to it.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

# Hiragana and Katakana, Han, Hangul left out (Korean has spaces), half-width Katakana, Han beyond the first plane
_EAST = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f"
_SOUTH_EAST = "\u0e00-\u0eff\u0f40-\u0fbc\u1000-\u109f\u1780-\u17ff"


def _marks(first: int, last: int) -> str:
    """The combining marks of a range of code points, as the inside of a character class."""
    return "".join(re.escape(chr(c)) for c in range(first, last + 1) if unicodedata.category(chr(c)).startswith("M"))


_SOUTH_EAST_MARKS = _marks(0xE00, 0x10A0) + _marks(0x1780, 0x17FF)
_ANY_UNSPACED = re.compile(f"[{_EAST}{_SOUTH_EAST}]")
_WORD = re.compile(f"[{_EAST}]|[{_SOUTH_EAST}][{_SOUTH_EAST_MARKS}]*|[^\\s{_EAST}{_SOUTH_EAST}]+")
# Neither letter, digit nor mark: to Python's ``\w`` the vowel signs of Indic and other scripts are no part of a word
_SEPARATORS = re.compile(f"(?:(?![{_marks(0x300, 0x20FF)}])[\\W_])+")
_ASCII = bytes(c if chr(c).isalnum() or chr(c) == "\n" else 0x20 for c in range(256))
_ALL_ASCII = bytes(range(0x80))
_NO_ASCII_LETTERS = bytes(c for c in range(256) if not chr(c).isalpha() or c >= 0x80)


def is_spaced(text: str) -> bool:
    """Whether spaces stand between all words of a text."""
    return text.isascii() or not _ANY_UNSPACED.search(text)


def split_words(text: str) -> list[str]:
    """The words of a text in order."""
    return text.split() if is_spaced(text) else _WORD.findall(text)


class Words:
    """A text's words and lines, split and numbered once for all steps that read the same text.

    Equal words have equal numbers, the place where the word first stands. ``ids`` and ``lengths`` (characters) are
    int64[N]; ``unique`` maps each word to its number, in order of appearance.
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
        return self.spread(list(map(len, self.unique)))

    @cached_property
    def chars(self) -> int:
        """Of all words together."""
        return sum(map(len, self.list))

    @cached_property
    def often(self) -> NDArray[np.int64]:
        """How often each unique word occurs, int64[U]."""
        counts: NDArray[np.int64] = np.bincount(self.ids, minlength=1)[self._first]
        return counts

    @cached_property
    def lowered(self) -> list[str]:
        """The unique words in lower case, [U]; two may be equal."""
        return list(map(str.lower, self.unique))

    @cached_property
    def lines(self) -> list[str]:
        """The lines with anything on them, without the spaces around."""
        return [line for raw in self.text.split("\n") if (line := raw.strip())]

    def spread(self, values: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Values of the unique words -> values of the words in order."""
        table = np.zeros(self.count, np.int64)
        table[self._first] = values
        return table[self.ids]


def beyond_ascii(text: str) -> str:
    """The characters of a text that ASCII has not, in order."""
    raw = text.encode("utf-8", "surrogatepass").translate(None, _ALL_ASCII)
    return raw.decode("utf-8", "surrogatepass")


def count_letters(text: str) -> int:
    """How many characters of a text are letters."""
    if text.isascii():
        return len(text.encode().translate(None, _NO_ASCII_LETTERS))
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw.translate(None, _NO_ASCII_LETTERS)) + sum(map(str.isalpha, beyond_ascii(text)))


def normalize(text: str) -> str:
    """Lower-case words with single spaces between, all that is neither letter, mark nor digit gone.

    Texts that differ in case, spacing or punctuation alone become equal.
    """
    return " ".join(filter(None, normalize_lines(text)))


def normalize_lines(text: str) -> list[str]:
    """Every line of a text as :func:`normalize` has it; joined by single spaces, those not empty are all of it."""
    lowered = text.lower()
    if lowered.isascii():
        separated, spaced = lowered.encode().translate(_ASCII).decode(), True
    else:  # by a table: a regular expression takes ten times as long where classes are large
        codes = np.frombuffer(lowered.encode("utf-32-le", "surrogatepass"), np.uint32)
        kinds = _kinds()[codes]
        blanked = np.where(kinds == _SEPARATOR, np.uint32(0x20), codes)
        separated, spaced = blanked.tobytes().decode("utf-32-le", "surrogatepass"), not np.any(kinds == _UNSPACED)
    lines = separated.split("\n")
    return [" ".join(line.split() if spaced else split_words(line)) for line in lines]


_SEPARATOR, _UNSPACED = 1, 2


@cache
def _kinds() -> NDArray[np.uint8]:
    """Of every code point whether it separates words (a line end is told apart) or stands for one by itself."""
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    kinds = np.zeros(len(everything), np.uint8)
    for pattern, kind in ((_ANY_UNSPACED, _UNSPACED), (_SEPARATORS, _SEPARATOR)):
        for found in pattern.finditer(everything):
            kinds[found.start() : found.end()] = kind
    kinds[ord("\n")] = 0
    return kinds
