"""Stand-ins for what a GPU computes otherwise than a CPU, on which tensors without values lie.

- Attention in one call over whole rows, where a CPU takes tiles. torch's kernel keeps queries, keys, values, the output
  and a number per query, on either device.
- The norm in one kernel, which keeps its input and a number per token.
- More logits at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from herdlm.model import attention, losses


class _Norm(torch.autograd.Function):
    """RMSNorm's shapes and memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, x.new_empty((*x.shape[:-1], 1), dtype=torch.float32))
        return torch.empty_like(x, dtype=torch.promote_types(x.dtype, weight.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight) if ctx.needs_input_grad[1] else None


def _rms_norm(x: Tensor, shape: Any, weight: Tensor, eps: float | None = None) -> Tensor:
    out: Tensor = _Norm.apply(x, weight)  # type: ignore[no-untyped-call]
    return out


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Choose as on a GPU while the block runs. Only for tensors without values."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(attention, "DENSE_UP_TO", sys.maxsize))
        stack.enter_context(patch.object(F, "rms_norm", _rms_norm))
        for table in (losses.KEPT_BYTES, losses.BLOCK, losses.CHUNK):
            stack.enter_context(patch.dict(table, cpu=table["cuda"]))
        yield
