"""Compares texts by their words and numbers, whatever their language."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from herdlm.curate.words import Words
from herdlm.evaluate.requests import Answer
from herdlm.verifiers.language import Language

LONGER = 4  # letters of words that carry content
NUMBER = re.compile(r"\d+(?:[.,\u00a0\u202f]\d+)*")
LABEL = re.compile(r"\A(?:\*\*)?[A-Z][a-z]+(?: [a-z]+)?:(?:\*\*)?\s+(?=\S)")
TELLING = 40  # letters from which the language of a text can be told


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; of scripts without spaces their characters."""
    return Words(text).normalized


def content_words(text: str) -> set[str]:
    """The longer words of a text; of scripts without spaces all characters."""
    return {word for word in words(text) if len(word) >= LONGER or not word.isascii()}


def numbers(text: str) -> Counter[str]:
    """The numbers of a text by their digits: separators differ among languages, and so do digits."""
    found = Counter[str]()
    for match in NUMBER.findall(text):
        digits = "".join(str(unicodedata.digit(sign)) for sign in match if sign.isdigit())
        found[digits] += 1
    return found


def alike(one: str, other: str) -> float:
    """The F1 of the words that two texts have in common, each as often as it occurs."""
    first, second = Counter(words(one)), Counter(words(other))
    common = (first & second).total()
    return 2 * common / (first.total() + second.total()) if common else 0.0


def share_in(text: str, source: str) -> float:
    """The share of a text's longer words that a source has; 1 for a text without any."""
    found = content_words(text)
    return len(found & content_words(source)) / len(found) if found else 1.0


def unfinished(answer: Answer) -> str:
    """Why an answer is none: "cut off", "empty" or ""."""
    if answer.finish != "stop":
        return "cut off"
    return "" if answer.text.strip() else "empty"


def tidy(text: str) -> str:
    """A text without the label and the quotation marks that models put around what they were asked for."""
    text = LABEL.sub("", text.strip(), count=1) if text.count("\n") == 0 else text.strip()
    if len(text) > 1 and text[0] + text[-1] in ('""', "\u201c\u201d", "\u00ab\u00bb") and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def is_in(language: str, text: str) -> bool:
    """Whether a text is in a language; one with too few letters to tell passes."""
    if sum(sign.isalpha() for sign in text) < TELLING:
        return True
    return Language(language=language)(text).passed
