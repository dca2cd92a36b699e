"""Ends Python code that runs too long, such as the loops of a chat template, from another thread."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

CHECK_SECONDS = 0.5


class TooLongError(Exception):
    """Raised in the code that ran too long."""


class _Watch:
    """One thread for all limits: to begin and to end one costs a microsecond."""

    def __init__(self) -> None:
        self.deadlines: dict[int, float] = {}
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None

    def begin(self, thread: int, deadline: float) -> None:
        with self.lock:
            self.deadlines[thread] = deadline
            if self.thread is None or not self.thread.is_alive():  # none after a fork
                self.thread = threading.Thread(target=self._run, name="time limits", daemon=True)
                self.thread.start()

    def end(self, thread: int) -> None:
        with self.lock:
            if self.deadlines.pop(thread, None) is None:  # told to end at the same moment as it ended by itself
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)

    def _run(self) -> None:
        while True:
            time.sleep(CHECK_SECONDS)
            with self.lock:
                now = time.monotonic()
                for thread in [thread for thread, deadline in self.deadlines.items() if deadline < now]:
                    del self.deadlines[thread]
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TooLongError))
                if not self.deadlines:
                    self.thread = None
                    return


_watch = _Watch()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TooLongError` in the block once it ran for ``seconds``, a little later. Blocks do not nest.

    It ends Python code alone, at its next step, and not a call of a library that takes long.
    """
    thread = threading.get_ident()
    _watch.begin(thread, time.monotonic() + seconds)
    try:
        yield
    finally:
        _watch.end(thread)
