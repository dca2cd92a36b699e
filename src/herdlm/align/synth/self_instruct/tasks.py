"""Tasks: reading seeds, finding new ones in what a teacher wrote, and what is wrong with them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from herdlm.align.synth.words import tidy, words
from herdlm.base.errors import InputError
from herdlm.data.files import read_rows
from herdlm.data.formats.detect import convert, form_of, known_form
from herdlm.data.row import RowError

WORDS = (4, 120)  # fewest and most of a task
NUMBERED = re.compile(r"^\s*(?:Task\s+)?\d+\s*[.):]\s*", re.MULTILINE)
NOT_TEXT = re.compile(
    r"\b(?:image|picture|photo|photograph|video|audio|sound file|recording|screenshot|diagram|file|attachment|attached|"
    r"spreadsheet|pdf|website|web page|link|url|browse|search the (?:web|internet)|click|today's|right now|"
    r"(?:draw|sketch|paint|plot) (?:me )?(?:an?|the)|play (?:a|the|some) (?:song|music)|call (?:me|him|her|them)|"
    r"set (?:a|an) (?:alarm|timer|reminder)|send (?:an?|the) (?:e-?mail|message)|"
    r"current (?:weather|price|time|news))s?\b|https?://",
    re.IGNORECASE,
)
MISSING = re.compile(
    r"\b(?:the|this|these|following|given|above|below) (?:\w+ )?(?:text|passage|paragraph|article|sentences?|poem|"
    r"story|code|list|email|essay|words?|numbers?|conversation|review|tweet)\b",
    re.IGNORECASE,
)
LEAST_GIVEN = 8  # words of a task after a colon or line break that count as what is given


class Novelty:
    """Finds tasks that share many words with earlier ones.

    Only tasks that share a word are compared, so that thousands of tasks cost little.

    Args:
        most: the greatest F1 of common words.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._bags: list[Counter[str]] = []
        self._with: dict[str, list[int]] = defaultdict(list)

    def nearest(self, text: str) -> float:
        """The greatest F1 of words with an earlier task."""
        bag = Counter(words(text))
        common = Counter[int]()
        for word, count in bag.items():
            for number in self._with.get(word, ()):
                common[number] += min(count, self._bags[number][word])
        total = bag.total()
        return max((2 * n / (total + self._bags[k].total()) for k, n in common.items()), default=0.0)

    def is_new(self, text: str) -> bool:
        """Whether no earlier task is alike."""
        return self.nearest(text) <= self._most

    def add(self, text: str) -> None:
        """Remember a task."""
        bag = Counter(words(text))
        for word in bag:
            self._with[word].append(len(self._bags))
        self._bags.append(bag)


def read_seeds(paths: Sequence[Path]) -> list[str]:
    """The different tasks of files: of self-instruct's seeds with their first input, of dialogs the first message.

    Raises:
        InputError: a file cannot be read, or there are no seeds.
    """
    found: dict[str, None] = {}
    for path in paths:
        for row in read_rows(path, is_row=lambda row: form_of(row) is not None):
            if isinstance(row, RowError):
                raise row
            records = convert(row, known_form(row), "dialogs")
            asked = next((m["content"] for r in records[:1] for m in r["messages"] if m["role"] == "user"), "")
            if isinstance(asked, str) and asked.strip() and len(words(asked)) <= WORDS[1]:
                found[asked.strip()] = None
    if not found:
        raise InputError(
            f"{', '.join(map(str, paths)) or 'seeds'}: no seed tasks", "Name files of tasks in self_instruct.seeds"
        )
    return list(found)


def listed(text: str) -> list[str]:
    """The tasks in a numbered list that begins with the first number or after it."""
    parts = [part.strip() for part in NUMBERED.split(text)]
    return [tidy(part) for part in parts if part]


def wrong_task(text: str) -> str:
    """What is wrong with a task, "" for nothing."""
    length = len(words(text))
    if length < WORDS[0]:
        return "the task is too short"
    if length > WORDS[1]:
        return "the task is too long"
    if not text[0].isalpha() and text[0] not in "\"'\u201c\u00ab\u00bf":
        return "the task begins with a mark"
    if NOT_TEXT.search(text):
        return "needs more than text"
    if MISSING.search(text) and not has_input(text):
        return "speaks of a text that is not there"
    return ""


def has_input(text: str) -> bool:
    """Whether a task gives something to work on, in quotation marks, after a colon or on further lines."""
    rest = max(re.split(r":\s|\n", text, maxsplit=1)[1:], key=len, default="")
    return (
        len(words(rest)) >= LEAST_GIVEN
        or bool(re.search(r"[\"\u201c][^\"\u201d]{12,}[\"\u201d]", text))
        or "```" in text
    )
