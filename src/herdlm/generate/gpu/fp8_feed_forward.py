"""The feed-forward in row-wise FP8 on Hopper: two products and two kernels instead of a dozen operations.

Gate and up are one matrix, their input is rounded to FP8 once, and one pass computes SwiGLU and rounds its result. The
numbers are those of :class:`herdlm.generate.fp8.linear.Fp8Linear` up to rounding of sums.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from herdlm.generate.cpu.fused import UnfusedFeedForward
from herdlm.generate.fp8.linear import Fp8Linear
from herdlm.generate.gpu.attention import runs_kernels
from herdlm.model.fp8 import FP8, fits_scaled_product, multiplies_fp8, scaled_product


class Fp8FeedForward(nn.Module):
    """SwiGLU whose three matrices are FP8 with a scale per output channel; see :func:`fp8_feed_forward`.

    The caller adds the last bias.
    """

    def __init__(self, gate: Fp8Linear, up: Fp8Linear, down: Fp8Linear) -> None:
        super().__init__()
        self.input_cap, self.inner_cap = gate.cap, down.cap
        bits = torch.cat((gate.weight.view(torch.uint8), up.weight.view(torch.uint8)))
        self.gate_up, self.down = bits.view(FP8), down.weight
        self.gate_up_scale = torch.cat((gate.weight_scale, up.weight_scale))
        self.down_scale = down.weight_scale
        biases = [part.bias for part in (gate, up) if part.bias is not None]
        self.gate_up_bias = torch.cat(biases) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        """x [N, D] bfloat16, contiguous -> [N, D]."""
        from herdlm.generate.gpu.launches import quantize_rows

        values, scale = quantize_rows(x, self.input_cap)
        both = scaled_product(values, scale, self.gate_up, self.gate_up_scale, x.dtype)
        if self.gate_up_bias is not None:
            both.add_(self.gate_up_bias)
        values, scale = quantize_rows(both, self.inner_cap, joined=True)
        return scaled_product(values, scale, self.down, self.down_scale, x.dtype)


def fp8_feed_forward(mixed: UnfusedFeedForward, compute: torch.dtype) -> Fp8FeedForward | UnfusedFeedForward:
    """The fast form of ``mixed``, or ``mixed`` itself where matrices, sizes or device do not allow it.

    The fast form needs whole tokens. Ranks that hold parts of each token have to agree on its scale first.
    """
    gate, up, down = mixed.gate, mixed.up, mixed.down
    if not (isinstance(gate, Fp8Linear) and isinstance(up, Fp8Linear) and isinstance(down, Fp8Linear)):
        return mixed
    device = gate.weight.device
    alike = gate.cap == up.cap and all(part.granularity == "row" for part in (gate, up, down))
    sizes_fit = fits_scaled_product(*gate.weight.shape, *down.weight.shape)
    # On a CPU the kernels run in Triton's interpreter.
    capable = runs_kernels(device) and (device.type == "cpu" or multiplies_fp8(device))
    if down.group is None and alike and sizes_fit and capable and compute == torch.bfloat16:
        return Fp8FeedForward(gate, up, down)
    return mixed
