"""Processes that end with the one that started them, however it ended."""

from __future__ import annotations

import os
import threading
import time

CHECK_SECONDS = 0.5


def end_with(parent: int) -> None:
    """End this process soon after ``parent``, the number of the process that started it, is gone.

    One that went on would write beside the next run, or hold memory for nobody.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(CHECK_SECONDS)
    os._exit(1)
