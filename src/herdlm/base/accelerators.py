"""What data sheets say of GPUs: the speed of products, and the size and speed of memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A GPU, by NVIDIA's data sheets for SXM modules.

    Attributes:
        flops: FLOP/s of dense products in BF16.
        gigabytes: memory, in GB.
        bytes_per_second: speed of the memory.
    """

    flops: float
    gigabytes: float
    bytes_per_second: float


ACCELERATORS = {
    "A100": Accelerator(312e12, 80.0, 2.039e12),
    "H100": Accelerator(989e12, 80.0, 3.35e12),
    "H800": Accelerator(989e12, 80.0, 3.35e12),
    "H200": Accelerator(989e12, 141.0, 4.8e12),
    "B200": Accelerator(2250e12, 180.0, 8e12),
}
"""By the part of a device's name that tells it from others."""
