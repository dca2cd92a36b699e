"""A layer of generation on a GPU: the fused layer with kernels for its small operations.

A step of few tokens reads the weights once and does little else, so its speed depends on their bytes and on the number
of launches. A layer of plain matrices has ten: two norms, four products (two of which add to the residual stream), RoPE
with the writing of keys and values, attention, the combination of its splits, and SwiGLU.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from herdlm.generate.cpu.fused import FusedFeedForward, FusedLayer, UnfusedFeedForward, product
from herdlm.generate.gpu.attention import PlannedAttention, kernels_fit
from herdlm.generate.gpu.fp8_feed_forward import fp8_feed_forward
from herdlm.generate.matrix import Matrix, WholeMatrix
from herdlm.model.attention import Attend
from herdlm.model.transformer import Layer


class KernelLayer(FusedLayer):
    """See :class:`herdlm.generate.cpu.fused.FusedLayer`; with attention other than the kernels' it is just that."""

    def __init__(
        self, whole: Layer, compute: torch.dtype, group: dist.ProcessGroup | None = None, *, compiled: bool = False
    ) -> None:
        super().__init__(whole, compute, group, compiled=compiled)
        if isinstance(self.mlp, UnfusedFeedForward) and group is None:
            self.mlp = fp8_feed_forward(self.mlp, compute)

    def forward(self, x: Tensor, rotation: Tensor, attend: Attend) -> Tensor:
        """See :meth:`herdlm.generate.cpu.fused.FusedLayer.forward`."""
        if not isinstance(attend, PlannedAttention):
            return super().forward(x, rotation, attend)
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # Triton launches on the current device
            heads = self._heads(self.input_layernorm(x))
            mixed = attend.attend_unrotated(self.number, heads, rotation).flatten(1)
            self._add_product(x, mixed, self.out, self.out_scale, self.out_bias)
            normed = self.post_attention_layernorm(x)
            if isinstance(self.mlp, FusedFeedForward):
                self._add_product(x, _inner(self.mlp, normed), self.mlp.down, self.mlp_scale, self.mlp_bias)
            else:
                self._add(x, self.mlp(normed), self.mlp_scale, self.mlp_bias)
        return x

    def _heads(self, x: Tensor) -> Tensor:
        """Queries, keys, whose channels are in pairs, and values, [N, H + 2K, C]."""
        if isinstance(self.qkv, nn.ModuleList):
            return torch.cat(self._projected(x), dim=1)
        return self.qkv(x).view(len(x), -1, self.head_size)

    def _add_product(self, x: Tensor, part: Tensor, by: Matrix | nn.Module, scale: float, bias: Tensor | None) -> None:
        """Add ``part`` times a matrix, and a bias, to ``x``; the product in one operation if possible."""
        if isinstance(by, WholeMatrix) and self.group is None:
            x.addmm_(part, by.weight)
            if bias is not None:
                x.add_(bias)
        else:
            self._add(x, product(by, part), scale, bias)


def _inner(mlp: FusedFeedForward, x: Tensor) -> Tensor:
    from herdlm.generate.gpu.launches import swiglu

    return swiglu(mlp.gate_up(x))


def layer_type(device: torch.device, compute: torch.dtype, head_size: int) -> type[FusedLayer]:
    """The fastest class of layer for the device."""
    return KernelLayer if kernels_fit(device, compute, head_size) else FusedLayer
