"""A linear layer that generates in FP8, by the Llama 3 report's rules (section 6.2).

Each output channel of a weight has a fixed scale; each token of an activation gets its scale from its own values. The
arithmetic is that of :mod:`herdlm.model.fp8`.

**The cap.** The report bounds dynamic scales from above by 1,200, because rare tokens with huge activations otherwise
get a scale so coarse that their small values vanish. The bound acts on the magnitude that enters the scale, as in the
kernels and in the released FP8 checkpoints (``activation_scale_ub``): ``scale = min(largest magnitude, 1200) / 448``,
and values beyond +-1,200 saturate. A bound on the quotient itself would first act at a magnitude of 537,600.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from herdlm.generate.fp8.config import Granularity
from herdlm.generate.matrix import Matrix, matrix
from herdlm.model.fp8 import (
    FP8,
    apply_scales,
    exact_floats,
    fits_scaled_product,
    multiplies_fp8,
    quantize,
    row_magnitudes,
    scale_of,
    scaled_product,
)
from herdlm.parallel.sharding import shard

LEAST_MAGNITUDE = 1e-30


def quantize_activation(
    x: Tensor, granularity: Granularity, cap: float, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor]:
    """Values [N, in] in FP8 and their scale, [N, 1] or [1] float32, of activations [N, in].

    A row that is not finite gets a scale of NaN and so stays visible: the cap would turn an infinity into an ordinary
    number.

    Args:
        cap: the largest magnitude that enters a scale; ``math.inf`` for none.
        group: ranks that hold a part of each row; they agree on the scale of the whole row.
    """
    x = x.float()
    mine = row_magnitudes(x) if granularity == "row" else x.abs().amax().reshape(1)
    largest = mine
    if group is not None:
        largest = mine.clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    # 0 * infinity is NaN, so the added term is 0 for finite rows only. It is this rank's own: NaN has no maximum.
    scale = scale_of(largest, least=LEAST_MAGNITUDE, cap=cap).add_(mine, alpha=0)
    return quantize(x, scale), scale


class Fp8Linear(nn.Module):
    """A linear layer whose weight is FP8 and whose input is rounded to FP8 on arrival; a bias is not quantized.

    The device and type of the first input choose one of two backends:

    - "scaled_mm": the GPU multiplies FP8 by FP8. Needs Hopper, bfloat16, and sizes that are multiples of 16.
    - "dense": everything else. A second, exact copy of the values has the form that multiplies fastest
      (:func:`herdlm.generate.matrix.matrix`); both scales are applied after the product. The numbers are those of
      "scaled_mm" up to rounding of sums. On a CPU the product is at least float32 whatever the type of the
      activations: it is exact, as the sums of "scaled_mm" are, and many CPUs have no units for bfloat16.

    Args:
        group: ranks that hold a part of the input's channels each; the caller sums their :meth:`product` and adds
            the bias.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        granularity: Granularity,
        cap: float,
        group: dist.ProcessGroup | None = None,
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.granularity, self.cap, self.group = granularity, cap, group
        self.register_buffer("weight", torch.empty(outputs, inputs, dtype=FP8))
        self.register_buffer("weight_scale", torch.empty((outputs, 1) if granularity == "row" else (1,)))
        self.register_buffer("bias", torch.empty(outputs) if bias else None)
        self.backend: str | None = None
        self._chosen_for: tuple[torch.device, torch.dtype] | None = None
        self._dense: Matrix | None = None
        self._wide = torch.float32

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move weight and scale as bits, so that changing the model's type leaves both, but not the bias, unchanged."""
        self.weight = fn(self.weight.view(torch.uint8)).view(FP8)
        self.weight_scale = fn(self.weight_scale.view(torch.int32)).view(torch.float32)
        if self.bias is not None:
            self.bias = fn(self.bias)
        self._chosen_for = self._dense = None
        return self

    def _choose(self, device: torch.device, dtype: torch.dtype) -> None:
        direct = multiplies_fp8(device) and fits_scaled_product(*self.weight.shape) and dtype == torch.bfloat16
        self.backend = "scaled_mm" if direct else "dense"
        self._dense = None
        if self.backend == "dense":
            wide = dtype if device.type != "cpu" else torch.promote_types(dtype, torch.float32)
            self._dense, self._wide = matrix(exact_floats(self.weight), wide), wide
        self._chosen_for = (device, dtype)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], without gradient."""
        out = self.product(x)
        return out if self.bias is None else out.add_(self.bias.to(out.dtype))

    @torch.no_grad()
    def product(self, x: Tensor) -> Tensor:
        """As :meth:`forward`, without the bias."""
        if self._chosen_for != (x.device, x.dtype):
            self._choose(x.device, x.dtype)
        outputs, inputs = self.weight.shape
        rows = x.reshape(-1, inputs)
        if rows.shape[0] == 0:
            return x.new_empty(*x.shape[:-1], outputs)
        values, scale = quantize_activation(rows, self.granularity, self.cap, self.group)
        if self._dense is None:
            out = scaled_product(values, scale, self.weight, self.weight_scale, x.dtype)
        else:
            product = self._dense(exact_floats(values).to(self._wide))
            out = apply_scales(product, scale * self._dense.scale, self.weight_scale, x.dtype)
        return out.reshape(*x.shape[:-1], outputs)

    def shard(self, dim: int, ranks: int, rank: int, group: dist.ProcessGroup) -> Fp8Linear:
        """This rank's output channels (``dim`` 0) with their scales and biases, or its input channels (1).

        Input channels of one token lie on all ranks of ``group``, which agree on the token's scale.
        """
        weight, scale = shard(self.weight, dim, ranks, rank), self.weight_scale
        if dim == 0 and self.granularity == "row":
            scale = shard(scale, 0, ranks, rank)
        with torch.device("meta"):
            part = Fp8Linear(weight.shape[1], weight.shape[0], self.granularity, self.cap, group if dim == 1 else None)
        part.bias = shard(self.bias, 0, ranks, rank) if dim == 0 and self.bias is not None else self.bias
        part.weight, part.weight_scale = weight.clone(memory_format=torch.contiguous_format), scale.clone()
        return part
