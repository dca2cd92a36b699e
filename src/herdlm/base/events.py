"""Append-only event logs, one JSON object per line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class EventLog:
    """Writes an event log. Each line is flushed whole, so a killed process leaves at most one torn last line."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event of ``kind`` with the wall-clock time in seconds since the epoch."""
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **fields})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def truncate_after(self, kind: str, field: str, last: int) -> None:
        """Drop events of ``kind`` whose ``field`` exceeds ``last``, so that a resumed run logs no step twice."""
        if not self.path.exists():
            return
        kept = [e for e in read_events(self.path) if e["kind"] != kind or e[field] <= last]
        replacement = self.path.with_suffix(".tmp")
        replacement.write_text("".join(json.dumps(e) + "\n" for e in kept), encoding="utf-8")
        replacement.replace(self.path)


def read_events(path: Path, kind: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the events of a log, of one ``kind`` if given. A torn last line is skipped."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                return
            event = json.loads(line)
            if kind is None or event["kind"] == kind:
                yield event
