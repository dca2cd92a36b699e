"""Guards of a run: preemption, hangs, loss spikes, and slow processes."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from herdlm.base.errors import HerdError


class PreemptedError(HerdError):
    """The run got SIGTERM, saved its state and stopped, which is not a failure."""

    exit_code = 0


def agree(here: bool) -> bool:
    """Whether ``here`` is true on any process of the group; without a group, on this one."""
    if not dist.is_initialized():
        return here
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    flag = torch.tensor(int(here), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def share(value: Any) -> Any:
    """The first process's value of small, plain data, on all processes."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


class Preemption:
    """Records a SIGTERM instead of dying of it, while the block runs. Only the main thread can install it."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None
        self._installed = False

    def __enter__(self) -> Preemption:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._record)
            self._installed = True
        return self

    def __exit__(self, *raised: object) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


class Watchdog:
    """Ends the process when no step finished for ``seconds``, after printing the stack of every thread.

    A process that waits for a dead one never returns by itself. Once it ends, torchrun restarts the group.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.last = time.monotonic()
        self._done = threading.Event()

    def __enter__(self) -> Watchdog:
        if self.seconds:
            self.last = time.monotonic()
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._done.set()

    def step_done(self) -> None:
        """Start counting again: a step finished."""
        self.last = time.monotonic()

    def _watch(self) -> None:
        while not self._done.wait(min(self.seconds / 4, 5.0)):
            if time.monotonic() - self.last > self.seconds:
                rank = os.environ.get("RANK", "0")
                sys.stderr.write(
                    f"herdlm: rank {rank} finished no step for {self.seconds:g} s; the stacks of its threads:\n"
                )
                faulthandler.dump_traceback(all_threads=True)
                os._exit(1)


class Stopwatch:
    """Times the device's work from here to :meth:`stop`, on a GPU by events and so without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.events: Any = None
        if device.type == "cuda":
            self.events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
        self.started = time.monotonic()
        if self.events:
            self.events[0].record()

    def stop(self) -> None:
        """The work ends here."""
        self.stopped = time.monotonic()
        if self.events:
            self.events[1].record()

    @property
    def seconds(self) -> float:
        """The seconds it took; on a GPU, only after something waited for the device."""
        return self.events[0].elapsed_time(self.events[1]) / 1000 if self.events else self.stopped - self.started
