"""What counts as a word: a run of non-spaces, and every character of the scripts that are written without spaces.

In Thai, Lao, Khmer, Burmese and Tibetan a character is a letter together with the marks that belong to it.
"""

from __future__ import annotations

import re
import unicodedata

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
_ASCII_SEPARATORS = re.compile(r"[\W_]+")


def split_words(text: str) -> list[str]:
    """The words of a text in order."""
    if text.isascii() or not _ANY_UNSPACED.search(text):
        return text.split()
    return _WORD.findall(text)


def normalize(text: str) -> str:
    """Lower-case words with single spaces between, all that is neither letter, mark nor digit gone.

    Texts that differ in case, spacing or punctuation alone become equal.
    """
    separators = _ASCII_SEPARATORS if text.isascii() else _SEPARATORS
    return " ".join(split_words(separators.sub(" ", text.lower())))
