"""Reads dialogs and prompts with all that is known of them: lineage, rewards, verdicts, references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from herdlm.base.errors import InputError
from herdlm.data.read import Converted, converted
from herdlm.data.row import Rename, RowError
from herdlm.data.useless import flaw

Kind = Literal["dialogs", "prompts"]
KEPT = ("id", "lineage", "reward", "judge", "verdict", "difficulty", "license", "task", "source")


def read_examples(
    files: Sequence[Path],
    kind: Kind | None = None,
    *,
    rename: Rename | None = None,
    licenses: Mapping[str, str] | None = None,
) -> tuple[Kind, list[dict[str, Any]], dict[str, int]]:
    """Their rows, each with ``lineage`` that names its file and line unless it has one; the kind; counts by file.

    Args:
        kind: what to make of rows; None: what the first row's form is for, dialogs or prompts.
        licenses: by file, for rows that name none.

    Raises:
        InputError: a row cannot be read, is of another kind, or says nothing.
    """
    rows: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    for file in files:
        before = len(rows)
        for found in converted(file, kind, rename):
            if isinstance(found, RowError):
                raise found
            if found.kind not in ("dialogs", "prompts"):
                raise found.row.error("", f"the row gives {found.kind}", "Give dialogs or prompts, or choose --kind")
            kind = kind or found.kind
            if found.kind != kind:
                raise found.row.error("", f"the row gives {found.kind}, the others {kind}", "Choose one with --kind")
            rows += _rows(found, file, (licenses or {}).get(str(file)))
        counts[str(file)] = len(rows) - before
    if kind is None or not rows:
        raise InputError(f"no row of {', '.join(map(str, files))} can be used", "Look at it with herdlm data check")
    return kind, rows, counts


def _rows(found: Converted, file: Path, license: str | None) -> list[dict[str, Any]]:
    made = []
    for record in found.records:
        if reason := flaw(found.kind, record):
            raise found.row.error(
                "", f"it teaches nothing: {reason}", "Write the others with herdlm data check --write"
            )
        own = {key: found.row.value[key] for key in KEPT if found.row.value.get(key) is not None}
        lineage = own.get("lineage")
        if lineage is not None and not isinstance(lineage, dict):
            raise found.row.error("lineage", "it is not an object", "Delete it")
        row = {**({"license": license} if license else {}), **own, **record}
        row["lineage"] = lineage or {"from": str(file), "row": found.row.place}
        made.append(row)
    return made
