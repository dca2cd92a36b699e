"""What watches over a run: pre-emption, hangs, losses that are not finite or jump, and slow processes."""

from __future__ import annotations

import faulthandler
import os
import signal
import statistics
import sys
import threading
import time
from collections import deque
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from herdlm.base.errors import HerdError

SPIKE_WINDOW = 64
SPIKE_DEVIATIONS = 6.0


class PreemptedError(HerdError):
    """The run was asked to end (SIGTERM), saved its state and did: no failure."""

    exit_code = 0


def agree(here: bool) -> bool:
    """Whether it is so on any process of the group; without a group, here."""
    if not dist.is_initialized():
        return here
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    flag = torch.tensor(int(here), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def problem_of_any(problem: str | None, group: dist.ProcessGroup | None = None) -> str | None:
    """The first process's problem of those that have one, on all processes of the group (None: the default one)."""
    if not dist.is_initialized():
        return problem
    problems: list[str | None] = [None] * dist.get_world_size(group)
    dist.all_gather_object(problems, problem, group=group)
    return next((each for each in problems if each is not None), None)


def share(value: Any) -> Any:
    """The first process's value of small, plain data, on all processes."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


class Preemption:
    """Notes a SIGTERM instead of dying of it, while the block runs. Only the main thread can."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None
        self._installed = False

    def __enter__(self) -> Preemption:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
            self._installed = True
        return self

    def __exit__(self, *raised: object) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


class Watchdog:
    """Ends the process when no step has been finished for ``seconds``, after a dump of what every thread was doing.

    A process that waits for one that is gone never returns by itself; torchrun then starts the group again.
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
        """The run is alive."""
        self.last = time.monotonic()

    def _watch(self) -> None:
        while not self._done.wait(min(self.seconds / 4, 5.0)):
            if time.monotonic() - self.last > self.seconds:
                rank = os.environ.get("RANK", "0")
                sys.stderr.write(f"herdlm: rank {rank} finished no step for {self.seconds:g} s; what its threads do:\n")
                faulthandler.dump_traceback(all_threads=True)
                os._exit(1)


class SpikeDetector:
    """Tells losses far above those just before: more than six standard deviations over the last 64 steps."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=SPIKE_WINDOW)

    def is_spike(self, loss: float) -> bool:
        """Whether ``loss`` is one; it counts as recent only if not."""
        full = len(self.recent) == SPIKE_WINDOW
        spread = statistics.pstdev(self.recent) if full else 0.0
        if full and loss > statistics.fmean(self.recent) + SPIKE_DEVIATIONS * max(spread, 1e-6):
            return True
        self.recent.append(loss)
        return False


def step_seconds_by_rank(seconds: float) -> list[float]:
    """Each process's own time for a step, for finding a slow one; a call for all of them."""
    if not dist.is_initialized():
        return [seconds]
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    mine = torch.tensor([seconds], device=device)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    return [round(float(t), 4) for t in everyone]
