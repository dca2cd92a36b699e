"""What a step's speed is held against: the device's peak, and its memory."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from functools import cache

import torch

# Dense BF16 products, FLOP/s, from NVIDIA's data sheets (SXM modules).
KNOWN_PEAKS = {"H100": 989e12, "H200": 989e12, "H800": 989e12, "A100": 312e12, "B200": 2250e12}
PROBE = 512  # side of the product that is timed where the peak is not known
PROBE_SECONDS = 0.1  # after which no further one is: processors without BF16 units take long
TRIES = 5


@dataclass(frozen=True, slots=True)
class Peak:
    """FLOP/s of matrix products in one process, and where the number is from."""

    flops: float
    source: str


def device_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """The peak of a device in ``dtype``: a known GPU's from its data sheet, any other measured now."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, flops in KNOWN_PEAKS.items():
            if part in name:
                return Peak(flops, f"data sheet of {name}")
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
    """The most memory the process has held so far: the GPU's allocations, or on a CPU the resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
