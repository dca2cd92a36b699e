"""Linear layers that train in FP8: row-wise scales, FP8 forward and toward the input, BF16 toward the weight.

Activations and gradients have a scale for each token, weights one for each output channel (forward) or each input
channel (backward). All scales are recomputed at every step, so there is no history to keep or save. The weight's
gradient sums over tokens, where rounding errors would add up; it stays a BF16 product. Weights and their names do not
change. The arithmetic is that of :mod:`herdlm.model.fp8`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from herdlm.model.fp8 import (
    FP8_MAX,
    apply_scales,
    fits_scaled_product,
    quantize,
    row_magnitudes,
    scale_of,
    scaled_product,
)

LEAST_MAGNITUDE = FP8_MAX * 1e-12


class Fp8TrainingLinear(nn.Linear):
    """A linear layer whose product is FP8 where autocast is on or its input is bfloat16; the bias stays bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """x [..., D] -> [..., F] in bfloat16."""
        flat = x.flatten(0, -2).to(torch.bfloat16)
        out: Tensor = _Fp8Product.apply(flat, self.weight)  # type: ignore[no-untyped-call]
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)
        return out.view(*x.shape[:-1], -1)


def apply_fp8(layer: nn.Module) -> int:
    """Turn the linear layers inside ``layer`` into :class:`Fp8TrainingLinear` in place; returns how many it turned.

    A layer with a dimension that is no multiple of 16 stays as it is: the kernels take no other.
    """
    linears = [module for module in layer.modules() if type(module) is nn.Linear]
    fitting = [linear for linear in linears if fits_scaled_product(linear.in_features, linear.out_features)]
    for linear in fitting:
        linear.__class__ = Fp8TrainingLinear
    return len(fitting)


class _Fp8Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        with torch.autocast(x.device.type, enabled=False):
            return rowwise_product(x, weight.to(torch.bfloat16))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.to(torch.bfloat16)
        d_x = d_weight = None
        with torch.autocast(x.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                d_x = rowwise_product(gradient, weight.to(torch.bfloat16).T)
            if ctx.needs_input_grad[1]:
                d_weight = torch.mm(gradient.T, x).to(weight.dtype)
        return d_x, d_weight


def rowwise_product(a: Tensor, b: Tensor) -> Tensor:
    """a b^T of bfloat16 [M, K] and [N, K] through e4m3 with a scale for every row of both; bfloat16 [M, N]."""
    left, left_scale = quantize_rows(a)
    right, right_scale = quantize_rows(b)
    if a.device.type == "cpu":  # torch before 2.12 has no scaled product by rows there; this is the same, and exact
        return apply_scales(left.float() @ right.float().T, left_scale, right_scale, torch.bfloat16)
    return scaled_product(left, left_scale, right, right_scale, torch.bfloat16, fast_accumulation=True)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """e4m3 values [M, K], contiguous, and float32 scales [M, 1] whose product is nearest to ``x``."""
    scale = scale_of(row_magnitudes(x).float(), least=LEAST_MAGNITUDE)
    return quantize(x.float(), scale).contiguous(), scale
