"""The feed-forward in row-wise FP8 on Hopper: two products and two kernels in place of a dozen operations.

Gate and up are one matrix, their input is rounded to FP8 once, and SwiGLU and the rounding of its result are one pass.
The numbers are those of :class:`herdlm.generate.fp8.linear.Fp8Linear` up to rounding of sums.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from herdlm.generate.cpu.fused import UnfusedFeedForward
from herdlm.generate.fp8.linear import FP8, Fp8Linear
from herdlm.generate.gpu.attention import runs_kernels


class Fp8FeedForward(nn.Module):
    """SwiGLU whose three matrices are FP8 with a scale per output channel; see :func:`fp8_feed_forward`."""

    def __init__(self, gate: Fp8Linear, up: Fp8Linear, down: Fp8Linear) -> None:
        super().__init__()
        self.input_cap, self.inner_cap = gate.cap, down.cap
        bits = torch.cat((gate.weight.view(torch.uint8), up.weight.view(torch.uint8)))
        self.gate_up, self.down = bits.view(FP8).t(), down.weight.t()
        self.gate_up_scale = torch.cat((gate.weight_scale, up.weight_scale)).t().contiguous()
        self.down_scale = down.weight_scale.t().contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """x [N, D] bfloat16, contiguous -> [N, D]."""
        from herdlm.generate.gpu.launches import quantize_rows

        values, scale = quantize_rows(x, self.input_cap)
        both = torch._scaled_mm(values, self.gate_up, scale, self.gate_up_scale, out_dtype=x.dtype)
        values, scale = quantize_rows(both, self.inner_cap, joined=True)
        return torch._scaled_mm(values, self.down, scale, self.down_scale, out_dtype=x.dtype)


def fp8_feed_forward(mixed: UnfusedFeedForward, compute: torch.dtype) -> Fp8FeedForward | UnfusedFeedForward:
    """``mixed`` in the fast form where its matrices, their sizes and the device allow it.

    It knows only whole tokens: where ranks hold parts of each, they have to agree on its scale, and ``mixed`` stays.
    """
    gate, up, down = mixed.gate, mixed.up, mixed.down
    if not (isinstance(gate, Fp8Linear) and isinstance(up, Fp8Linear) and isinstance(down, Fp8Linear)):
        return mixed
    device = gate.weight.device
    alike = gate.cap == up.cap and all(part.granularity == "row" for part in (gate, up, down))
    sizes_fit = all(size % 16 == 0 for size in (*gate.weight.shape, *down.weight.shape))
    hopper = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (9, 0)
    if down.group is None and alike and sizes_fit and hopper and compute == torch.bfloat16 and runs_kernels(device):
        return Fp8FeedForward(gate, up, down)
    return mixed
