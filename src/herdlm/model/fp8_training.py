"""Linear layers that train in FP8: row-wise scales, FP8 forward and towards the input, BF16 towards the weight.

Activations and gradients have a scale for each token, weights one for each output channel (forward) or each input
channel (backward), all taken anew at every step, so no history has to be kept or saved. The weight's gradient, a sum
over tokens in which rounding would add up, stays a BF16 product. Weights and their names do not change.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max
ALIGNMENT = 16  # torch._scaled_mm takes dimensions that are multiples of this


class Fp8Linear(nn.Linear):
    """A linear layer without bias whose products are FP8 where autocast is on or its input is bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """x [..., D] -> [..., F] in bfloat16."""
        flat = x.flatten(0, -2).to(torch.bfloat16)
        out: Tensor = _Fp8Product.apply(flat, self.weight)  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], -1)


def apply_fp8(layer: nn.Module) -> int:
    """Turn the linear layers inside ``layer`` into :class:`Fp8Linear` in place; how many were.

    One whose dimensions are no multiples of 16 stays as it is: the kernels take no other.
    """
    linears = [module for module in layer.modules() if type(module) is nn.Linear and not _has_bias(module)]
    fitting = [n for n in linears if not (n.in_features % ALIGNMENT or n.out_features % ALIGNMENT)]
    for linear in fitting:
        linear.__class__ = Fp8Linear
    return len(fitting)


def _has_bias(linear: nn.Linear) -> bool:
    return "bias" in dict(linear.named_parameters())


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
    left, left_scale = quantise_rows(a)
    right, right_scale = quantise_rows(b)
    if a.device.type == "cpu":  # torch before 2.12 has no scaled product by rows there; this is the same, and exact
        return (left.float() @ right.float().T).mul_(left_scale).mul_(right_scale.T).to(torch.bfloat16)
    return torch._scaled_mm(
        left, right.T, scale_a=left_scale, scale_b=right_scale.T, out_dtype=torch.bfloat16, use_fast_accum=True
    )


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """e4m3 values [M, K], contiguous, and float32 scales [M, 1] whose product is nearest to ``x``."""
    scale = (x.abs().amax(1, keepdim=True).float() / LARGEST).clamp(min=1e-12)
    return (x.float() / scale).clamp(-LARGEST, LARGEST).to(E4M3).contiguous(), scale
