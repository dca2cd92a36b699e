"""The peak speed of a device, which MFU is relative to, and its peak memory."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from functools import cache

import torch

from herdlm.base.accelerators import ACCELERATORS

PROBE = 512  # size of the matrix product that is timed if the peak is unknown
PROBE_SECONDS = 0.1  # stop timing after this long: processors without BF16 units are slow
TRIES = 5


@dataclass(frozen=True, slots=True)
class Peak:
    """FLOP/s of matrix products in one process, and the source of the number."""

    flops: float
    source: str


def device_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """The peak of a device in ``dtype``: from the data sheet of a known GPU, otherwise measured now."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, known in ACCELERATORS.items():
            if part in name:
                return Peak(known.flops, f"data sheet of {name}")
    return _measured(device, dtype, torch.get_num_threads())


@cache
def _measured(device: torch.device, dtype: torch.dtype, threads: int) -> Peak:
    a, b = (torch.ones(PROBE, PROBE, dtype=dtype, device=device) for _ in range(2))
    best, spent = float("inf"), 0.0
    for _ in range(TRIES):
        started = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took = time.perf_counter() - started
        best, spent = min(best, took), spent + took
        if spent > PROBE_SECONDS:
            break
    shape = f"product of {PROBE} x {PROBE} matrices in {str(dtype).removeprefix('torch.')}, {threads} threads"
    return Peak(2 * PROBE**3 / best, f"fastest {shape}, measured")


def peak_memory_gib(device: torch.device) -> float:
    """The most memory that the process held so far: allocations on a GPU, the resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
