"""A weight in FP8 at once, as :mod:`herdlm.generate.fp8.folder` makes it some rows at a time."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from herdlm.generate.fp8.config import Granularity
from herdlm.model.fp8 import FP8, quantize, weight_scale


def quantized(weight: Tensor, granularity: Granularity) -> tuple[Tensor, Tensor]:
    """Values [out, in] and their scale, [out, 1] or [1], of a weight [out, in]."""
    weight = weight.float()
    largest = weight.abs().amax(-1, keepdim=True) if granularity == "row" else weight.abs().amax().reshape(1)
    scale = weight_scale(largest)
    return quantize(weight, scale), scale


@cache
def has_scaled_product(granularity: Granularity) -> bool:
    """Whether torch has a scaled product here: torch 2.11 has none by rows, and some processors have none with AVX2."""
    values, scale = torch.ones(16, 16).to(FP8), torch.ones(16, 1) if granularity == "row" else torch.ones(1)
    try:
        torch._scaled_mm(values, values.t(), scale_a=scale, scale_b=scale.t(), out_dtype=torch.float32)
    except RuntimeError:
        return False
    return True
