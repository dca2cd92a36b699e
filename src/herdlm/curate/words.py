"""What counts as a word: a run of non-spaces, and every character of the scripts that are written without spaces.

In Thai, Lao, Khmer, Burmese and Tibetan a character is a letter together with the marks that belong to it.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache

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


def split_words(text: str) -> list[str]:
    """The words of a text in order."""
    if text.isascii() or not _ANY_UNSPACED.search(text):
        return text.split()
    return _WORD.findall(text)


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
