"""The texts of evaluation items, from files of any form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.data.files import read_rows
from herdlm.data.formats.detect import convert, form_of
from herdlm.data.row import Row, RowError
from herdlm.tokens.chat import text_of

# Columns that hold what is asked, in benchmarks whose rows are not of a form that is trained on.
ASKED = ("question", "query", "goal", "prompt", "instruction", "sentence", "ctx", "context", "premise", "text", "input")
MORE = ("continuation", "passage", "hypothesis", "sol1", "sol2")


def item_texts(files: Sequence[Path]) -> dict[str, list[str]]:
    """The text of each item, by the name of its file.

    Raises:
        InputError: a file cannot be read, two have one name, or a row has no text.
    """
    found: dict[str, list[str]] = {}
    for file in files:
        if file.name in found:
            raise InputError(f"two evaluation files are named {file.name}", "Rename one")
        found[file.name] = [text for row in read_rows(file, is_row=_is_row) for text in _texts(row)]
        if not found[file.name]:
            raise InputError(f"{file} holds no items", "Name another file")
    return found


def _texts(row: Row | RowError) -> Iterator[str]:
    if isinstance(row, RowError):
        raise row
    form = form_of(row)
    if form is not None and not form.refusal and "prompts" in {*form.makes, "prompts"} and "text" not in form.makes:
        for record in convert(row, form, "prompts"):
            yield "\n".join(text_of(message) for message in record["prompt"] if message["role"] == "user")
        return
    parts = [_text(row.value.get(key)) for key in (*ASKED, *MORE)]
    if not any(parts):
        raise row.error("", f"no column holds a question; keys seen: {', '.join(row.seen[:12])}", "Name it question")
    yield "\n".join(part for part in parts if part)


def _text(value: Any) -> str:
    if isinstance(value, dict):  # ARC's question with its stem
        return _text(value.get("stem"))
    return value if isinstance(value, str) else ""


def _is_row(row: Row) -> bool:
    return form_of(row) is not None or any(key in row for key in ASKED)
