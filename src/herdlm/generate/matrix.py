"""Matrices in the form that generation multiplies fastest.

Generation reads every weight once per step, so at a small batch memory limits its speed. Most processors have no units
for BF16. On those, a matrix whose values all fit FP16 is stored in 16 bits and multiplied in float32 (FBGEMM's packed
form, which torch includes): half of float32's memory, and the same numbers.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from herdlm.base.processor import has_units_for

TOP = 15  # the largest weight is scaled to 2**14 or more, below 2**15: in FP16's range, far above its smallest numbers
# A weight 2**29 times smaller than the largest is not stored exactly; the error is 2**-15 of float32's rounding.
LOST = 2.0**-25


class Matrix(Protocol):
    """Multiplies by a weight times ``2**-exponent``; see :func:`matrix`.

    ``scale`` is that power of two. The caller applies it, as part of a multiplication that it needs anyway.
    """

    scale: float

    def __call__(self, x: Tensor) -> Tensor:
        """x [N, in] -> [N, out], too large by 1 / scale."""
        ...


class WholeMatrix:
    """A matrix in the type it is computed in."""

    scale = 1.0

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.t().contiguous() if weight.device.type == "cpu" else weight.t()

    def __call__(self, x: Tensor) -> Tensor:
        """See :class:`Matrix`."""
        return x @ self.weight


class HalfMatrix:
    """A matrix in 16 bits, computed in float32 on a CPU.

    Args:
        halves: [out, in] float32, the weight times ``1 / scale``; every value fits FP16.
    """

    def __init__(self, halves: Tensor, scale: float) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch may drop it one day, which `packs` checks
            self.weight: Tensor = torch.fbgemm_pack_gemm_matrix_fp16(halves)
        self.scale = scale

    def __call__(self, x: Tensor) -> Tensor:
        """See :class:`Matrix`."""
        out: Tensor = torch.fbgemm_linear_fp16_weight_fp32_activation(x, self.weight, None)
        return out


def matrix(weight: Tensor, compute: torch.dtype) -> Matrix:
    """The fastest form of ``weight`` [out, in] for activations of type ``compute`` on the weight's device."""
    if compute == torch.float32 and weight.device.type == "cpu" and packs():
        whole = weight.float()
        largest = float(whole.abs().max())
        scale = 2.0 ** (TOP - torch.frexp(torch.tensor(largest)).exponent.item()) if 0 < largest < torch.inf else 1.0
        scaled = whole * scale
        if bool((scaled.half().float() - scaled).abs().max() <= LOST):
            return HalfMatrix(scaled, 1 / scale)
    return WholeMatrix(weight.to(compute))


@cache
def packs() -> bool:
    """Whether this torch multiplies by packed 16-bit matrices correctly."""
    try:
        weight, x = torch.arange(12.0).view(4, 3) / 8, torch.arange(6.0).view(2, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.equal(HalfMatrix(weight, 1.0)(x), x @ weight.t())
    except (AttributeError, RuntimeError):  # removed from this torch, or not built for this processor
        return False


def fastest_type(device: torch.device, stored: torch.dtype) -> torch.dtype:
    """The type to compute in for weights stored as ``stored``: float32 if the processor would have to emulate it."""
    if device.type != "cpu" or stored.itemsize != 2 or has_units_for(stored):
        return stored
    return torch.float32
