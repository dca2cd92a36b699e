"""Writes canonical records as JSON Lines, which the readers read back as they are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from herdlm.base.errors import InputError
from herdlm.base.json_lines import write_json_lines
from herdlm.data.formats.form import Record


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        InputError: the file exists, or its folder does not.
    """
    if path.exists():
        raise InputError(f"{path} exists", "Choose a new file")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is not a folder", "Make it, or choose another file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_json_lines(temporary, records)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
