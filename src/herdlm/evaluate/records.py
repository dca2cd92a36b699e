"""The records of a task's items as JSON Lines, written as items are finished, so that a killed evaluation goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from herdlm.base.errors import DamagedError

HEAD = "evaluation"


class Records:
    """The records of one model, task, data and settings.

    The first line names them all; a file with the same name has the same.

    Attributes:
        found: the records of finished items by their number.
    """

    def __init__(self, folder: Path, name: str, head: Mapping[str, Any]) -> None:
        self.head = dict(head)
        key = hashlib.sha256(json.dumps(self.head, sort_keys=True).encode()).hexdigest()[:12]
        self.path = folder / f"{name}.{key}.jsonl"
        self.found: dict[int, dict[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._read()
        else:
            self._write({HEAD: self.head}, "w")

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a finished item's record."""
        self.found[record["id"]] = dict(record)
        self._write(record, "a")

    def _write(self, value: Mapping[str, Any], mode: str) -> None:
        text = json.dumps(value, ensure_ascii=False) + "\n"
        try:
            with self.path.open(f"{mode}b") as file:
                file.write(text.encode("utf-8", "backslashreplace"))  # half a surrogate pair becomes JSON's escape
        except OSError as error:  # of a full disk, which names no file
            error.filename = str(self.path)
            raise

    def _read(self) -> None:
        """Read what an earlier evaluation wrote, and cut off a line that was being written when it was killed."""
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(self.path, len(whole))
        lines = whole.split(b"\n")[:-1]  # texts may hold other ends of lines, which JSON does not escape
        if not lines:
            self._write({HEAD: self.head}, "w")
            return
        try:
            values = [json.loads(line) for line in lines]
            same = values[0][HEAD] == self.head
            self.found = {value["id"]: value for value in values[1:]}
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{self.path} is damaged: {error}", "Delete it and evaluate again") from error
        if not same:
            raise DamagedError(f"{self.path}, line 1 names another evaluation", "Delete it and evaluate again")
