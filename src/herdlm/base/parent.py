"""Ends a process when its parent is gone, however the parent ended."""

from __future__ import annotations

import os
import threading
import time

CHECK_SECONDS = 0.5


def end_with(parent: int) -> None:
    """End this process soon after ``parent``, the id of the process that started it, is gone.

    Otherwise it would write into the next run's files, or keep memory without use.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(CHECK_SECONDS)
    os._exit(1)
