"""The file of answers: a line per answered prompt, sorted into the order of the prompts at the end.

A running job writes to ``OUT.part``, whose first line identifies the run. A killed run leaves at most one incomplete
line, which the next run cuts off.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from herdlm.base.artifact import sync_folder
from herdlm.base.errors import InputError
from herdlm.serve.batch.prompts import Id


class Answers:
    """The answers to prompts ``ids``, published at ``out``; a context manager that locks ``OUT.part``.

    Args:
        run: everything the answers depend on. A part of a different run is refused.

    Attributes:
        done: numbers of the prompts answered so far.

    Raises:
        InputError: ``out`` exists, its part belongs to another run or process, or it cannot be written.
    """

    def __init__(self, out: Path, ids: Sequence[Id], run: dict[str, Any]) -> None:
        self.out, self.part, self.ids = out, out.with_name(f"{out.name}.part"), ids
        self.done: set[int] = set()
        self._run = run
        self._at: dict[int, int] = {}  # byte offset of each answer in the part

    def __enter__(self) -> Answers:
        if self.out.exists():
            raise InputError(f"{self.out} exists", "Give another --out, or delete the file to generate again")
        try:
            self._file = open(os.open(self.part, os.O_RDWR | os.O_CREAT, 0o666), "r+b")  # noqa: PTH123
        except OSError as error:
            raise InputError(f"{self.part} cannot be written: {error.strerror}", "Give another --out") from error
        try:
            self._lock()
            self._restore()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, number: int, answer: dict[str, Any]) -> None:
        """Write one answer, which survives if this process is killed."""
        self._at[number] = self._file.tell()
        self.done.add(number)
        self._file.write(_line({"id": self.ids[number], **answer}))
        self._file.flush()

    def publish(self) -> int:
        """Write all answers in the order of their prompts to ``out``; returns how many are errors."""
        failed, sorting = 0, self.out.with_name(f".{self.out.name}.sorting")
        with sorting.open("wb") as file:
            for number in range(len(self.ids)):
                self._file.seek(self._at[number])
                line = self._file.readline()
                failed += "error" in json.loads(line)
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        sorting.rename(self.out)
        self.part.unlink()
        sync_folder(self.out.parent)
        return failed

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is writing {self.part}", "Wait for it, or give another --out") from None

    def _restore(self) -> None:
        """Read what an earlier process of this run answered."""
        first = self._file.readline()
        if not first.endswith(b"\n"):  # new, or killed before its first line was complete
            self._file.seek(0)
            self._file.truncate()
            self._file.write(_line({"run": self._run}))
            self._file.flush()
            return
        self._check_run(first)
        numbers = {json.dumps(id): number for number, id in enumerate(self.ids)}
        end = self._file.tell()
        while (line := self._file.readline()).endswith(b"\n"):
            try:
                number = numbers[json.dumps(json.loads(line)["id"])]
            except (ValueError, KeyError, TypeError):
                break  # the last write before a power failure
            self._at[number] = end
            self.done.add(number)
            end = self._file.tell()
        self._file.seek(end)
        self._file.truncate()

    def _check_run(self, first: bytes) -> None:
        try:
            run = json.loads(first)["run"]
            differing = sorted(key for key in self._run.keys() | run.keys() if self._run.get(key) != run.get(key))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self.part} is not an unfinished file of answers", "Give another --out") from error
        if differing:
            raise InputError(
                f"{self.part} belongs to a run that differs in {', '.join(differing)}",
                "Give another --out, or delete the file to start over",
            )


def _line(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()
