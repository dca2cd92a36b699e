"""The arithmetic of FP8: scales, rounding and scaled products, for training and for generation.

A tensor is ``values * scale`` with values in e4m3 (largest 448, three bits of mantissa) and ``scale = largest magnitude
/ 448`` of its row, or of the whole tensor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max
ALIGNMENT = 16  # torch._scaled_mm takes sizes that are multiples of this
CONVERTED_BY_TORCH = 8192  # below this many values torch's own conversion to float32 is faster than ours


def row_magnitudes(x: Tensor) -> Tensor:
    """The largest magnitude of each row of x [..., K], [..., 1]."""
    return x.abs().amax(-1, keepdim=True)


def scale_of(magnitude: Tensor, *, least: float, cap: float = math.inf) -> Tensor:
    """The float32 scale of a row whose largest magnitude is ``magnitude``.

    Args:
        magnitude: float32; NaN stays NaN.
        least: the smallest magnitude that counts, so that a row of zeros has a scale.
        cap: the largest magnitude that counts; larger values saturate.
    """
    return magnitude.clamp(least, cap).div_(FP8_MAX)


def weight_scale(magnitude: Tensor) -> Tensor:
    """The scale of a stored weight: float32, rounded up to a number that bfloat16 holds exactly; 1 for zeros."""
    scale = (((magnitude / FP8_MAX).view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def quantize(x: Tensor, scale: Tensor) -> Tensor:
    """The e4m3 values of float32 x under ``scale``, saturated at +-448."""
    return (x / scale).clamp_(-FP8_MAX, FP8_MAX).to(FP8)


def exact_floats(values: Tensor) -> Tensor:
    """FP8 values as float32. NaN may become 480: the scale of its row is NaN then.

    An e4m3 number's bits, moved up by seven, are those of a half-precision number 256 times smaller. Processors widen
    eight of those at once, which is ten times faster on a CPU than torch's own conversion of large tensors.
    """
    if values.device.type != "cpu" or values.numel() < CONVERTED_BY_TORCH:
        return values.float()
    bits = values.view(torch.int8).to(torch.int16).mul_(128).bitwise_and_(~0x4000)
    return bits.view(torch.float16).float().mul_(256)


def fits_scaled_product(*sizes: int) -> bool:
    """Whether torch's scaled product takes matrices of these sizes."""
    return not any(size % ALIGNMENT for size in sizes)


def multiplies_fp8(device: torch.device) -> bool:
    """Whether the device multiplies FP8 by FP8: CUDA of compute capability 9.0 (Hopper) and up."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def scaled_product(
    a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, dtype: torch.dtype, *, fast_accumulation: bool = False
) -> Tensor:
    """a b^T [M, N] in ``dtype`` of e4m3 a [M, K] and b [N, K], on a device that multiplies FP8.

    Args:
        a_scale, b_scale: [M, 1] and [N, 1], or [1] for a whole matrix.
        fast_accumulation: sum in the tensor cores' own, narrower registers.
    """
    return torch._scaled_mm(
        a, b.t(), scale_a=a_scale, scale_b=b_scale.t(), out_dtype=dtype, use_fast_accum=fast_accumulation
    )


def apply_scales(product: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Finish :func:`scaled_product` where the values were multiplied without their scales; overwrites ``product``."""
    return product.mul_(a_scale).mul_(b_scale.t()).to(dtype)
