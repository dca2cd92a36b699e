"""Reads labels: which documents are good, or what they are about, as judged by people or a language model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.curate.rows import read_corpus, read_rows
from herdlm.curate.steps.language import identify

COLUMNS = ("id", "text", "language", "label", "score", "fault")


@dataclass(frozen=True, slots=True)
class Labeled:
    """A text and its label, a name or a score. ``key`` is its id or, if it has none, the text."""

    key: str
    text: str
    language: str
    label: str | float


@dataclass(frozen=True, slots=True)
class Labels:
    """The labeled texts of a file, and how many rows have no answer or name an unknown document."""

    texts: list[Labeled]
    unanswered: int
    unmatched: int


def read_labels(path: Path, corpus: Path | None = None) -> Labels:
    """Read the labels of a JSONL or Parquet file: rows with ``id`` or ``text``, and ``label`` (a name) or ``score``.

    Ids are looked up in ``corpus``. Rows with a ``fault``, which ``herdlm label`` writes if a model gave no usable
    answer, are counted and left out. If a document has several rows, all count.

    Raises:
        InputError: A file is missing or damaged, a row is incomplete, names and scores are mixed, or no row is left.
    """
    rows: list[dict[str, Any]] = []
    unanswered = 0
    for number, row in enumerate(read_rows(path, (), COLUMNS), 1):
        if row["fault"] is not None:
            unanswered += 1
            continue
        rows.append(row | {"label": _label(row, f"{path}, row {number}")})
    if {type(row["label"]) for row in rows} == {str, float}:
        raise InputError(f"{path} has names in some rows and scores in others", "Put them into separate files")
    wanted = {row["id"] for row in rows if row["text"] is None}
    documents: dict[str, tuple[str, str]] = {}
    if wanted:
        if corpus is None:
            raise InputError(f"{path} names documents by id, but no corpus is given", "Give their corpus")
        documents = {r["id"]: (r["text"], r["language"]) for r in read_corpus(corpus) if r["id"] in wanted}
    texts = list(_joined(rows, documents))
    if not texts:
        raise InputError(
            f"{path} labels no document" + (f" of {corpus}" if wanted else ""),
            f"{unanswered} of its rows have no answer, and {len(rows)} name unknown ids",
        )
    return Labels(texts, unanswered, len(rows) - len(texts))


def _joined(rows: list[dict[str, Any]], documents: dict[str, tuple[str, str]]) -> Iterator[Labeled]:
    for row in rows:
        if row["text"] is not None:
            text = row["text"]
            yield Labeled(row["id"] or text, text, row["language"] or identify(text)[0], row["label"])
        elif row["id"] in documents:
            yield Labeled(row["id"], *documents[row["id"]], row["label"])


def _label(row: dict[str, Any], where: str) -> str | float:
    for column in ("id", "text", "language", "label"):
        if row[column] is not None and not isinstance(row[column], str):
            raise InputError(f"{where}: {column} = {row[column]!r} is not a string", "Give numbers as score")
    if row["id"] is None and row["text"] is None:
        raise InputError(f"{where}: has neither id nor text", "Name the document that the label is for")
    if (row["label"] is None) == (row["score"] is None):
        raise InputError(f"{where}: needs either a label or a score", "Give one of them")
    if row["label"] is not None:
        return str(row["label"])
    score = row["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise InputError(f"{where}: score = {score!r} is not a number", "Give names as label")
    return float(score)
