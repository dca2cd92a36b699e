"""Log-probabilities of targets from hidden states and the head, without a second tensor as large as the logits.

The head is the largest matrix of a small model, and its logits are the largest tensor of any model. So one function
computes values and gradients of a loss over rows of logits, in one of two ways with the same results:

- ``kept``: the forward pass overwrites the logits with their gradient (softmax minus one-hot), in the type of the
  matrix product. Nothing else of size [N, V] exists, and the backward pass is two matrix products. The gradient of
  each log-probability scales rows of their results instead of the [N, V] tensor.
- ``chunked``: full logits never exist; the backward pass computes a chunk's logits again (a third more arithmetic in
  the head). Wijmans et al. (arXiv 2411.09009) show what this is worth with large vocabularies.

:mod:`herdlm.model.distillation` uses both for a student's loss against its teacher.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from herdlm.model.transformer import Transformer

Way = Literal["auto", "kept", "chunked"]

# The most bytes of logits that are kept: a small share of the memory of either kind of device.
KEPT_BYTES = {"cpu": 128 * 2**20, "cuda": 2 * 2**30}
# Logits processed at once: what stays in a CPU core's caches, and what fills a GPU.
BLOCK = {"cpu": 2**19, "cuda": 2**27}
CHUNK = {"cpu": 2**23, "cuda": 2**28}
PART = 8192  # tokens of the vocabulary whose weight gradients are computed at once


def target_logprobs(model: Transformer, hidden: Tensor, targets: Tensor, *, way: Way = "auto") -> Tensor:
    """Log-probability of each target, [N] float32, from hidden states [N, D] and targets [N].

    ``auto`` keeps the logits if they are small for the device. A head that is not a plain matrix (but sharded,
    quantized or hooked) is called as a module, and its logits are whole.
    """
    if not is_plain_head(model.lm_head, hidden):
        return -F.cross_entropy(model.logits(hidden).float(), targets, reduction="none")
    return linear_logprobs(hidden, model.lm_head.weight, targets, way=way)


def linear_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, *, way: Way = "auto") -> Tensor:
    """log softmax(hidden weight^T) at ``targets``: [N] float32 from [N, D], [V, D] and [N].

    The product is in the autocast type if autocast is on. Sums over the vocabulary, and the result, are float32
    (float64 for float64 inputs).
    """
    return from_logits(hidden, weight, _logprobs, (targets,), way)[0]


def at_least_float(values: Tensor) -> Tensor:
    """The values in float32, or in their own type if that is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def is_plain_head(head: nn.Module, hidden: Tensor) -> bool:
    plain = type(head) is nn.Linear and type(head.weight) is nn.Parameter and type(hidden) is Tensor
    return plain and not head._forward_hooks and not head._forward_pre_hooks


class RowLoss(Protocol):
    """Values [N, n] of rows of logits [N, V]: the first has a gradient, the others are only logged.

    With ``overwrite``, ``logits`` become minus the first value's gradient.
    """

    def __call__(self, logits: Tensor, *columns: Tensor, overwrite: bool) -> Tensor: ...


def from_logits(
    hidden: Tensor, weight: Tensor, row_loss: RowLoss, columns: tuple[Tensor, ...], way: Way
) -> tuple[Tensor, ...]:
    """The values, [N] each, that ``row_loss`` gives for the logits of hidden [N, D] and weight [V, D], and columns."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    if way == "auto":
        size = hidden.shape[0] * weight.shape[0] * dtype.itemsize
        way = "kept" if size <= KEPT_BYTES.get(device, KEPT_BYTES["cuda"]) else "chunked"
    with torch.autocast(device, enabled=False):
        kept = way == "kept" and torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
        out: tuple[Tensor, ...] = (_Kept if kept else _Chunked).apply(hidden, weight, row_loss, dtype, *columns)  # type: ignore[no-untyped-call]
        return out


def _split(ctx: Any, values: Tensor) -> tuple[Tensor, ...]:
    """Values [N, n] as n tensors, of which the first has a gradient."""
    first, *others = (value.clone() for value in values.unbind(1))
    ctx.mark_non_differentiable(*others)
    return first, *others


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, row_loss: RowLoss, dtype: torch.dtype, *columns: Tensor
    ) -> tuple[Tensor, ...]:
        d_logits = F.linear(hidden.to(dtype), weight.to(dtype))
        values = row_loss(d_logits, *columns, overwrite=True)
        ctx.save_for_backward(hidden, weight, d_logits)
        return _split(ctx, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, d_logits = ctx.saved_tensors
        scale = -gradients[0][:, None]
        d_hidden = d_weight = None
        with torch.autocast(hidden.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                d_hidden = (torch.mm(d_logits, weight.to(d_logits.dtype)) * scale).to(hidden.dtype)
            if ctx.needs_input_grad[1]:  # in parts, for memory; transposing what is smaller than the logits, for speed
                scaled, d_weight = (hidden * scale).to(d_logits.dtype).T.contiguous(), torch.empty_like(weight)
                for (part,), columns in zip(blocks(PART, d_weight), d_logits.split(PART, dim=1), strict=True):
                    part.copy_(torch.mm(scaled, columns).T.contiguous())
        return d_hidden, d_weight, *[None] * (len(ctx.needs_input_grad) - 2)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, row_loss: RowLoss, dtype: torch.dtype, *columns: Tensor
    ) -> tuple[Tensor, ...]:
        matrix = weight.to(dtype)
        ctx.save_for_backward(hidden, weight, *columns)
        ctx.row_loss, ctx.dtype = row_loss, dtype
        parts = list(blocks(_chunk_rows(hidden, weight), hidden, *columns)) or [(hidden, *columns)]
        values = [row_loss(F.linear(part.to(dtype), matrix), *rest, overwrite=False) for part, *rest in parts]
        return _split(ctx, torch.cat(values))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, *columns = ctx.saved_tensors
        matrix, scale = weight.to(ctx.dtype), -gradients[0][:, None]
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=scale.dtype)
        rows = _chunk_rows(hidden, weight)
        with torch.autocast(hidden.device.type, enabled=False):
            for part, factor, d_part, *rest in blocks(rows, hidden, scale, d_hidden, *columns):
                d_logits = F.linear(part.to(ctx.dtype), matrix)
                ctx.row_loss(d_logits, *rest, overwrite=True)
                if ctx.needs_input_grad[0]:
                    d_part.copy_(torch.mm(d_logits, matrix) * factor)
                if ctx.needs_input_grad[1]:
                    d_weight += torch.mm(d_logits.T, (part * factor).to(ctx.dtype))
        needed = ctx.needs_input_grad
        return (
            d_hidden if needed[0] else None,
            d_weight.to(weight.dtype) if needed[1] else None,
            *[None] * (len(needed) - 2),
        )


def blocks(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of ``rows`` rows, the same of every tensor."""
    return (tuple(t[begin : begin + rows] for t in tensors) for begin in range(0, len(tensors[0]), rows))


def _chunk_rows(hidden: Tensor, weight: Tensor) -> int:
    return max(CHUNK.get(hidden.device.type, CHUNK["cuda"]) // weight.shape[0], 1)


def block_rows(logits: Tensor) -> int:
    return max(BLOCK.get(logits.device.type, BLOCK["cuda"]) // logits.shape[1], 1)


def _logprobs(logits: Tensor, *columns: Tensor, overwrite: bool) -> Tensor:
    """Log-probabilities [N, 1] of targets [N]; with ``overwrite``, ``logits`` [N, V] become softmax minus one-hot."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    logprobs = torch.empty((len(logits), 1), dtype=wide, device=logits.device)
    for block, out, wanted in blocks(block_rows(logits), logits, logprobs[:, 0], *columns):
        scores = block.to(wide)
        weights = torch.softmax(scores, 1)
        # The largest weight is 1 / sum exp(score - largest score), which gives the normalizer without another pass.
        normalizer = scores.amax(1) - weights.amax(1).log()
        torch.sub(scores.gather(1, wanted[:, None])[:, 0], normalizer, out=out)
        if overwrite:
            block.copy_(weights.scatter_add_(1, wanted[:, None], weights.new_full((len(wanted), 1), -1.0)))
    return logprobs


def sums_by_document(values: Tensor, documents: Tensor, count: int) -> Tensor:
    """Sums of ``values`` [N] by document number [N], [count]."""
    return torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, documents, values)
