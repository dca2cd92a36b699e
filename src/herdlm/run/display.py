"""Shows progress while stages run: a bar per stage on a terminal, otherwise a line from time to time."""

from __future__ import annotations

import sys
import threading
import time
from multiprocessing.queues import Queue
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from herdlm.base.progress import LINE_EVERY_SECONDS


class Display:
    """Shows the progress that workers put on ``queue`` as (title, done, total, unit, rate, note)."""

    def __init__(self, queue: Queue[Any], *, total: int, quiet: bool) -> None:
        self.queue, self.total, self.quiet = queue, total, quiet
        self.done = 0
        self.console = Console(stderr=True)
        self.live = sys.stderr.isatty() and not quiet
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(30),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self.tasks: dict[str, TaskID] = {}
        self.last_line: dict[str, float] = {}
        self.begun: dict[str, float] = {}
        self.reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Display:
        self.bars.start()
        self.reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.queue.put(None)
        self.reader.join(timeout=2)
        self.bars.stop()

    def count(self, stages: int) -> None:
        """Count ``stages`` that need no work as done."""
        self.done += stages

    def started(self, stage: str) -> None:
        """Record that a stage has begun."""
        self.begun[stage] = time.monotonic()

    def finished(self, stage: str) -> None:
        """Record that a stage is done, and print a line that stays."""
        self.done += 1
        if not self.quiet:
            seconds = time.monotonic() - self.begun[stage]
            self.console.print(f"[{self.done}/{self.total}] {stage} ({seconds:.1f} s)", highlight=False, markup=False)

    def _read(self) -> None:
        while (message := self.queue.get()) is not None:
            title, done, total, unit, rate, note = message
            detail = (
                f"{done:,}{f'/{total:,}' if total else ''} {unit}, {rate:,.1f} {unit}/s{', ' + note if note else ''}"
            )
            if self.live:
                if title not in self.tasks:
                    self.tasks[title] = self.bars.add_task(title, total=total, detail="")
                finished = total is not None and done >= total
                self.bars.update(self.tasks[title], completed=done, total=total, detail=detail, visible=not finished)
            elif not self.quiet:
                now = time.monotonic()
                if now - self.last_line.setdefault(title, now) >= LINE_EVERY_SECONDS:
                    self.last_line[title] = now
                    left = f", {(total - done) / rate:.0f} s left" if total and rate > 0 else ""
                    self.console.print(f"  {title}: {detail}{left}", highlight=False, markup=False)
