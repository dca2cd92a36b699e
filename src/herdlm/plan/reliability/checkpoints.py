"""Checkpoints of a run: how large, how long they take, and how often to write one.

The best interval T between checkpoints that each stop the run for C seconds, with failures that come at random once in
M seconds: Young (1974) gives sqrt(2 C M), Daly (2006) a series in sqrt(C / M). Both approximate the T that makes
(exp((T + C) / M) - 1) / T, the time that a second of kept work takes, smallest. ``best_interval`` solves that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from herdlm.base.errors import InputError

STATE_BYTES = 12  # of a parameter: FP32 weight and the two moments of AdamW (train/checkpoint.py)
STORAGE_PER_GPU = 2e12 / 16_384  # bytes/s: 2 TB/s sustained for 16,384 GPUs (Llama 3 report, section 3.3.1)
HOST_COPY = 5e9  # bytes/s of a GPU's state to memory of its host that is not pinned, as the trainer copies it
BARRIER = (
    0.5  # seconds until all GPUs have copied; 8,960 stopped for 0.59 s in all (ByteCheckpoint, NSDI 2025, table 8)
)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """What checkpoints cost. Times are in seconds.

    Attributes:
        size: bytes of one.
        stall: the run stands still for each.
        write: from its start until it is safe, in which the run goes on if it is longer than ``stall``.
        read: of the newest one, after a failure.
        interval: of work between two.
    """

    size: float
    stall: float
    write: float
    read: float
    interval: float

    def __post_init__(self) -> None:
        if not (self.size > 0 and self.stall >= 0 and self.write >= self.stall and self.read >= 0):
            raise InputError(f"checkpoints are impossible: {self}", "Give positive sizes and rates")
        if not self.interval > 0 or self.write - self.stall > self.interval:
            raise InputError(
                f"a checkpoint takes {self.write:,.0f} s to write, longer than the {self.interval:,.0f} s between two",
                "Write them less often, or to faster storage",
            )


def costs(
    parameters: int,
    gpus: int,
    *,
    storage: float | None = None,
    writer: float = 1e9,
    writers: int | None = None,
    blocking: bool = False,
    state_bytes: float = STATE_BYTES,
) -> Checkpoints:
    """Size and times of checkpoints; the interval is left at infinity.

    Args:
        storage: bytes/s that all may write together.
        writer: bytes/s of one writer; ``writers`` of them, by default every GPU.
        blocking: the run waits until the checkpoint is written.
    """
    writers = writers or gpus
    rate = min(storage or STORAGE_PER_GPU * gpus, writers * writer)
    if not (parameters > 0 and gpus > 0 and rate > 0):
        raise InputError("checkpoints need parameters, GPUs and a rate above 0", "Give positive numbers")
    size = parameters * state_bytes
    copy = size / gpus / HOST_COPY + BARRIER
    write = copy + size / rate
    return Checkpoints(size, write if blocking else copy, write, size / rate, math.inf)


def young(stall: float, between: float) -> float:
    """Young's interval of work between checkpoints (Communications of the ACM 17, 1974)."""
    return math.sqrt(2 * stall * between)


def daly(stall: float, between: float) -> float:
    """Daly's interval of higher order (Future Generation Computer Systems 22, 2006, equation 37)."""
    if stall >= 2 * between:
        return between
    ratio = stall / (2 * between)
    return math.sqrt(2 * stall * between) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - stall


def best_interval(stall: float, between: float, shortest: float = 0.0) -> float:
    """The interval that keeps most work per second, where failures come at random once in ``between`` seconds.

    The derivative is zero where exp((T + C) / M) * (1 - T / M) = 1, whose left side falls from T = 0 to T = M.

    Args:
        shortest: no interval may be below it, such as the time of a write.
    """
    low, high = 0.0, between
    for _ in range(200):
        middle = (low + high) / 2
        if math.log1p(-middle / between) + (middle + stall) / between > 0:
            low = middle
        else:
            high = middle
    return max(low, shortest)
