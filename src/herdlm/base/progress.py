"""Progress of long work: a bar with rate and time left on a terminal, otherwise a line every 30 seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

LINE_EVERY_SECONDS = 30.0
SHOW_EVERY_SECONDS = 0.2

# If set, gets (title, done, total, unit, rate, note) instead of the terminal: a worker process reports to its parent.
report_to: Callable[[tuple[str, int, int | None, str, float, str]], None] | None = None


class Progress:
    """Counts units of work, ``total`` in all (None: unknown). Use as a context manager and call :meth:`advance`."""

    def __init__(self, title: str, total: int | None, unit: str = "it", *, quiet: bool = False) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self.restored = 0
        self.quiet = quiet
        self.terminal = sys.stderr.isatty()
        self.started = self.last_shown = time.monotonic()
        self.note = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (self.terminal or report_to) and not self.quiet:
            self._show()
            if not report_to:
                sys.stderr.write("\n")

    def restore(self, count: int) -> None:
        """Count units that an earlier process finished; the rate covers this process alone."""
        self.done += count
        self.restored += count

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count units that were finished; ``note`` (a loss, for example) is shown after the rate."""
        self.done += count
        self.note = note or self.note
        now = time.monotonic()
        interval = SHOW_EVERY_SECONDS if self.terminal or report_to else LINE_EVERY_SECONDS
        if not self.quiet and now - self.last_shown >= interval:
            self.last_shown = now
            self._show()

    def _show(self) -> None:
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = (self.done - self.restored) / seconds
        if report_to:
            report_to((self.title, self.done, self.total, self.unit, rate, self.note))
            return
        parts = [f"{self.title}: {self.done:,}"]
        if self.total:
            parts[0] += f"/{self.total:,} {self.unit} ({100 * self.done / self.total:.0f}%)"
            if rate > 0:
                parts.append(f"{max(self.total - self.done, 0) / rate:.0f} s left")
        else:
            parts[0] += f" {self.unit}"
        parts.insert(1, f"{rate:,.1f} {self.unit}/s")
        if self.note:
            parts.append(self.note)
        line = ", ".join(parts)
        sys.stderr.write(f"\r\x1b[K{line}" if self.terminal else f"{line}\n")
        sys.stderr.flush()
