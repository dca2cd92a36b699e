"""Removes lines that many documents share (menus, notices, cookie banners), without tearing code or prose apart.

A line's key is the hash of its normalized words (``words.normalize``). Digits count, since tables, versions and
headings only differ by them. Each line of a document counts once.

A line is **removed** if its key is frequent and it has at least ``LONG_WORDS`` words and ``LONG_BYTES`` bytes (a
Chinese character has three). A shorter line is as likely a heading ("See also") as part of a menu, so it is only
removed in a run of at least ``MENU_LINES`` frequent lines, not counting blank ones.

**Code** is neither counted nor touched, since programs rightly begin and end alike. A line is code if it is indented by
a tab or four spaces, or looks like a statement. So is every line of a block (between two blank lines) if at least half
of its lines are. Once one line of the block is code, an indent of two spaces or a leading ``#`` counts as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from herdlm.base.recipe import Section
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.corpus import Corpus
from herdlm.curate.duplicates.hashing import hash_text
from herdlm.curate.step import DocumentStep
from herdlm.curate.words import normalize_lines

LONG_WORDS = 3
LONG_BYTES = 16
MENU_LINES = 4
ONLY_REPEATED, MOSTLY_REPEATED = "only_repeated_lines", "mostly_repeated_lines"
_CODE_START = re.compile(
    r"""
      \t | [ ]{4}                                                     # indented
    | \s*(>>>|\.\.\.\s|\$\s|[#]!|[#]include\b|//|/\*|</\w)           # prompts, directives, comments, end tags
    | \s*<\w[^>]*>\s*$ | \s*[\])}]+[,;]?\s*$                         # a tag or closing brackets alone
    | \s*import\s[\w.]+(\s*[,;]|\s+as\s|\s*$) | \s*from\s+[\w.]+\s+import\b
    | \s*def\s+\w+\s*\( | \s*class\s+\w+\s*[({:] | \s*return\b.*[;)]\s*$
    """,
    re.VERBOSE,
)
_ASSIGNMENT = re.compile(r"\s*[\w.$\[\]'\"-]+\s*=\s*\S")
_CALL = re.compile(r"\s*[\w.]+\([^()]*\)\s*$")
_OPERATOR = re.compile(r"\w\s*(==|!=|:=|[+*/|&^-]=|=>|->|::)\s*\S")
_CODE_END = (";", "{", "}", "[", "\\", "):", ") :")
_PERHAPS_CODE = re.compile(r"[ ]{2,3}\S|\s*[#]\s")
_BLANK_LINES = re.compile(r"\n{3,}")


class RepeatedLinesConfig(Section):
    """When a line is repeated too often."""

    max_documents: int = Field(6, ge=1, description="lines in more documents of a bucket are removed")
    bucket_documents: int = Field(30_000_000, ge=1, description="documents over which lines are counted")
    max_removed: float = Field(0.5, ge=0, le=1, description="share of a text; if more is removed, the rest is dropped")


class RepeatedLines(DocumentStep):
    """Removes repeated lines from ``text``, and drops documents that mostly consist of them."""

    name, prose_only = "repeated_lines", True
    settings: RepeatedLinesConfig

    def run(self, batch: Batch, corpus: Corpus) -> Outcome:
        reasons, texts = [], []
        for row, before, keys in zip(batch["row"], batch["text"], batch["lines"], strict=True):
            repeated = corpus.repeated_lines(row)
            has_any = bool(np.isin(np.array(keys, np.uint64), repeated).any())
            after = remove_lines(before, repeated) if has_any else before
            reason = check_remainder(before, after, self.settings.max_removed)
            reasons.append(reason)
            texts.append(before if reason else after)
        return Outcome(reasons, {"text": texts})


def line_keys(text: str, normalized: Sequence[str] | None = None) -> NDArray[np.uint64]:
    """Return the keys of a document's lines that are neither blank nor code, ascending and each once.

    ``normalized`` are its lines by ``words.normalize_lines``, if available.
    """
    normalized = normalize_lines(text) if normalized is None else normalized
    different = {normalized[number] for number in _prose_lines(text.split("\n"), normalized)}
    return np.array(sorted(set(map(hash_text, different))), np.uint64)


def frequent(keys: NDArray[np.uint64], more_than: int) -> NDArray[np.uint64]:
    """Return the keys that occur more than ``more_than`` times, ascending.

    ``keys`` are the :func:`line_keys` of all documents of a bucket, or of one partition of it, in any order. They count
    documents, since each document has a key once.
    """
    found, counts = np.unique(keys, return_counts=True)
    return found[counts > more_than]


def remove_lines(text: str, frequent: NDArray[np.uint64]) -> str:
    """Remove the ``frequent`` lines (ascending keys) of a document, by the rule at the top of this file.

    The other lines are not changed. Repeated blank lines are only left if nothing was removed.
    """
    if not len(frequent):
        return text
    lines = text.split("\n")
    normalized = normalize_lines(text)
    prose = _prose_lines(lines, normalized)
    keys = np.array([hash_text(normalized[number]) for number in prose], np.uint64)
    at = np.minimum(np.searchsorted(frequent, keys), len(frequent) - 1)
    is_frequent = dict(zip(prose, (frequent[at] == keys).tolist(), strict=True))
    removed: set[int] = set()
    run: list[int] = []
    for number in [*(number for number, line in enumerate(lines) if line.strip()), len(lines)]:
        if is_frequent.get(number, False):
            run.append(number)
            continue
        removed.update(run if len(run) >= MENU_LINES else (each for each in run if _is_long(normalized[each])))
        run = []
    if not removed:
        return text
    left = "\n".join(line for number, line in enumerate(lines) if number not in removed)
    return _BLANK_LINES.sub("\n\n", left).strip("\n")


def check_remainder(before: str, after: str, max_removed: float) -> str | None:
    """Return the reason to drop a document once its repeated lines are removed, or None.

    ``only_repeated_lines``: nothing is left. ``mostly_repeated_lines``: more than ``max_removed`` of its characters
    without spaces were removed.
    """
    if not after.strip():
        return ONLY_REPEATED
    if after is before:
        return None
    total, left = (len("".join(text.split())) for text in (before, after))
    return MOSTLY_REPEATED if total - left > max_removed * total else None


def _is_long(words: str) -> bool:
    return words.count(" ") + 1 >= LONG_WORDS and len(words.encode(errors="replace")) >= LONG_BYTES


def _prose_lines(lines: list[str], normalized: Sequence[str]) -> list[int]:
    """Return the indices of the lines that have words and are not code."""
    found: list[int] = []
    block: list[int] = []
    for number, line in enumerate([*lines, ""]):
        if line and not line.isspace():
            block.append(number)
            continue
        code = {each for each in block if _is_code(lines[each])}
        perhaps = sum(1 for each in block if each not in code and _PERHAPS_CODE.match(lines[each])) if code else 0
        if not code or 2 * (len(code) + perhaps) < len(block):
            found += [each for each in block if each not in code and normalized[each]]
        block = []
    return found


def _is_code(line: str) -> bool:
    if _CODE_START.match(line) or line.rstrip().endswith(_CODE_END):
        return True
    if ("=" in line and _ASSIGNMENT.match(line)) or ("(" in line and _CALL.match(line)):
        return True
    return ("=" in line or "->" in line or "::" in line) and bool(_OPERATOR.search(line))
