"""What was found so far, by keys, appended to a file as it is found, so that killed work goes on."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from herdlm.base.errors import DamagedError, InputError


class Ledger:
    """Values that JSON can write, by key; a context manager that keeps other processes out.

    A key is a hash of everything that its value depends on, so that a ledger is never wrong, only of no use. A killed
    process leaves at most one incomplete line, which is cut off.

    Attributes:
        found: the values so far.

    Raises:
        InputError: another process has it open.
        DamagedError: a line is not of this form.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = {}

    def __enter__(self) -> Ledger:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError:
            self._file.close()
            raise InputError(f"another process is writing {self.path}", "Wait for it, or give another --out") from None
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, key: str, value: Any) -> None:
        """Write a value, which survives if this process is killed."""
        self.found[key] = value
        self._file.write((json.dumps({"key": key, "value": value}) + "\n").encode())
        self._file.flush()

    def _read(self) -> None:
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                self.found[row["key"]] = row["value"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise DamagedError(f"{self.path}, line {number} is damaged", "Delete the file to start anew") from error
            end += len(line)
        self._file.truncate(end)
