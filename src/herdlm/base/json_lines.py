"""JSON Lines: one object per line, in UTF-8."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from herdlm.base.errors import DamagedError, InputError


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each object with the number of its line, counted from 1; blank lines are skipped.

    Raises:
        InputError: the file is missing.
        DamagedError: a line is not a JSON object.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist", "Check the path")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:  # of JSON or of UTF-8
                raise DamagedError(f"{path}, line {number} is not JSON: {error}", "Correct or delete it") from error
            if not isinstance(value, dict):
                raise DamagedError(f"{path}, line {number} is not a JSON object", "Correct or delete it")
            yield number, value


def read_json_lines(path: Path) -> list[Any]:
    """All objects of a file; see :func:`json_lines` for what is refused."""
    return [value for _, value in json_lines(path)]


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write one object per line."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
