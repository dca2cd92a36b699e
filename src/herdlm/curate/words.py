"""What counts as a word: a run of non-spaces, and every character of the scripts that are written without spaces."""

from __future__ import annotations

import re

# Hiragana and Katakana, Han, Hangul left out (Korean has spaces), half-width Katakana, Han beyond the first plane
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f"
_ANY_UNSPACED = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")
_SEPARATORS = re.compile(r"[\W_]+")


def split_words(text: str) -> list[str]:
    """The words of a text in order."""
    if text.isascii() or not _ANY_UNSPACED.search(text):
        return text.split()
    return _WORD.findall(text)


def normalize(text: str) -> str:
    """Lower-case words with single spaces between, all that is neither letter nor digit gone.

    Texts that differ in case, spacing or punctuation alone become equal.
    """
    return " ".join(split_words(_SEPARATORS.sub(" ", text.lower())))
