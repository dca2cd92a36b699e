"""Log-probabilities and losses, computed only where there is a target.

Every loss is a sum; the loop divides it by the global weight of all targets, so that accumulation and layout never
change the result.

The head is the largest matrix of a small model and its logits the largest tensor of any, so log-probabilities of
targets come from one function of hidden states and head, with two ways that agree in value and gradient:

- ``kept``: the logits are turned in place into what their gradient needs (softmax minus one-hot) in the forward pass,
  in the type of the matrix product; nothing else of size [N, V] exists, and the backward pass is two matrix products.
  The gradient g of each log-probability scales rows of the results instead of the [N, V] tensor.
- ``chunked``: full logits never exist; the backward pass computes a chunk's logits again (a third more arithmetic in
  the head). Wijmans et al. (arXiv 2411.09009) show what this is worth at large vocabularies.

A student's loss against its teacher goes the same ways: only what a row of logits is turned into differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from herdlm.model.distillation import Distillation
from herdlm.model.transformer import Transformer

Way = Literal["auto", "kept", "chunked"]

# The most that logits may take and still be kept: a small share of the memory of either kind of device.
KEPT_BYTES = {"cpu": 128 * 2**20, "cuda": 2 * 2**30}
# Logits worked on at once: what stays in a CPU core's caches, and what fills a GPU.
BLOCK = {"cpu": 2**19, "cuda": 2**27}
CHUNK = {"cpu": 2**23, "cuda": 2**28}
PART = 8192  # tokens of the vocabulary whose weight gradients are made at once


def target_logprobs(model: Transformer, hidden: Tensor, targets: Tensor, *, way: Way = "auto") -> Tensor:
    """Log-probability of each target, [N] float32, from hidden states [N, D] and targets [N].

    ``auto`` keeps logits while they are small for the device. A head that is more than a plain matrix (sharded,
    quantised, hooked) is called as a module and its logits are whole.
    """
    if not _is_plain(model.lm_head, hidden):
        return -F.cross_entropy(model.logits(hidden).float(), targets, reduction="none")
    return linear_logprobs(hidden, model.lm_head.weight, targets, way=way)


def linear_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, *, way: Way = "auto") -> Tensor:
    """log softmax(hidden weight^T) at ``targets``: [N] float32 from [N, D], [V, D] and [N].

    The product is taken in the autocast type where autocast is on; sums over the vocabulary are float32 (float64 for
    float64 inputs, and so is the result).
    """
    return _through(hidden, weight, _logprobs, (targets,), way)[0]


def distilled(
    model: Transformer, hidden: Tensor, targets: Tensor, ids: Tensor, logprobs: Tensor, *, loss: Distillation
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`linear_distilled`, of a model's head, with the exception that :func:`target_logprobs` names."""
    if _is_plain(model.lm_head, hidden):
        return linear_distilled(hidden, model.lm_head.weight, targets, ids, logprobs, loss=loss)
    logits = at_least_float(model.logits(hidden))
    columns = (targets, ids, logprobs.to(logits.dtype))
    values = loss.values(loss.log_normalizers(logits, *columns), loss.gathered_logits(logits, *columns), *columns)
    value, target, divergence = values.unbind(1)
    return value, target.detach(), divergence.detach()


def linear_distilled(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    ids: Tensor,
    logprobs: Tensor,
    *,
    loss: Distillation,
    way: Way = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Minus the loss of every row of hidden states [N, D] with head [V, D], each [N]; types as in the plain loss.

    Also the target's log-probability and the divergence from the teacher; these two have no gradient.

    Args:
        targets: [N].
        ids: the teacher's tokens, [N, K], different ones in a row.
        logprobs: the teacher's log-probabilities of them, [N, K].
    """
    found = _through(hidden, weight, partial(_distilled, loss), (targets, ids, logprobs), way)
    return found[0], found[1], found[2]


def at_least_float(values: Tensor) -> Tensor:
    """In float32, or what is finer."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _is_plain(head: nn.Module, hidden: Tensor) -> bool:
    plain = type(head) is nn.Linear and type(head.weight) is nn.Parameter and type(hidden) is Tensor
    return plain and not head._forward_hooks and not head._forward_pre_hooks


class _Turn(Protocol):
    """What a row of logits is turned into: the value whose gradient is asked for, and others that are only looked at.

    With ``errors``, ``logits`` [N, V] become minus the value's gradient in them.
    """

    def __call__(self, logits: Tensor, *columns: Tensor, errors: bool) -> Tensor: ...


def _through(hidden: Tensor, weight: Tensor, turn: _Turn, columns: tuple[Tensor, ...], way: Way) -> tuple[Tensor, ...]:
    """What ``turn`` makes of the logits of hidden states [N, D] and head [V, D] and of columns [N, ...], each [N]."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    if way == "auto":
        size = hidden.shape[0] * weight.shape[0] * dtype.itemsize
        way = "kept" if size <= KEPT_BYTES.get(device, KEPT_BYTES["cuda"]) else "chunked"
    with torch.autocast(device, enabled=False):
        kept = way == "kept" and torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
        out: tuple[Tensor, ...] = (_Kept if kept else _Chunked).apply(hidden, weight, turn, dtype, *columns)  # type: ignore[no-untyped-call]
        return out


def _apart(ctx: Any, values: Tensor) -> tuple[Tensor, ...]:
    """Values [N, n] as n tensors of which the first has a gradient."""
    first, *others = (value.clone() for value in values.unbind(1))
    ctx.mark_non_differentiable(*others)
    return first, *others


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, turn: _Turn, dtype: torch.dtype, *columns: Tensor
    ) -> tuple[Tensor, ...]:
        errors = F.linear(hidden.to(dtype), weight.to(dtype))
        values = turn(errors, *columns, errors=True)
        ctx.save_for_backward(hidden, weight, errors)
        return _apart(ctx, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, errors = ctx.saved_tensors
        scale = -gradients[0][:, None]
        d_hidden = d_weight = None
        with torch.autocast(hidden.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                d_hidden = (torch.mm(errors, weight.to(errors.dtype)) * scale).to(hidden.dtype)
            if ctx.needs_input_grad[1]:  # by parts: the whole in another type beside it would be the step's peak
                scaled, d_weight = (hidden * scale).to(errors.dtype), torch.empty_like(weight)
                for (part,), columns in zip(_blocks(PART, d_weight), errors.split(PART, dim=1), strict=True):
                    part.copy_(torch.mm(columns.T, scaled))
        return d_hidden, d_weight, *[None] * (len(ctx.needs_input_grad) - 2)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, turn: _Turn, dtype: torch.dtype, *columns: Tensor
    ) -> tuple[Tensor, ...]:
        matrix = weight.to(dtype)
        ctx.save_for_backward(hidden, weight, *columns)
        ctx.turn, ctx.dtype = turn, dtype
        parts = list(_blocks(_chunk_rows(hidden, weight), hidden, *columns)) or [(hidden, *columns)]
        found = [turn(F.linear(part.to(dtype), matrix), *rest, errors=False) for part, *rest in parts]
        return _apart(ctx, torch.cat(found))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, *columns = ctx.saved_tensors
        matrix, scale = weight.to(ctx.dtype), -gradients[0][:, None]
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=scale.dtype)
        rows = _chunk_rows(hidden, weight)
        with torch.autocast(hidden.device.type, enabled=False):
            for part, factor, d_part, *rest in _blocks(rows, hidden, scale, d_hidden, *columns):
                errors = F.linear(part.to(ctx.dtype), matrix)
                ctx.turn(errors, *rest, errors=True)
                if ctx.needs_input_grad[0]:
                    d_part.copy_(torch.mm(errors, matrix) * factor)
                if ctx.needs_input_grad[1]:
                    d_weight += torch.mm(errors.T, (part * factor).to(ctx.dtype))
        needed = ctx.needs_input_grad
        return (
            d_hidden if needed[0] else None,
            d_weight.to(weight.dtype) if needed[1] else None,
            *[None] * (len(needed) - 2),
        )


def _blocks(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same ``rows`` rows of every tensor, one block after another."""
    return (tuple(t[begin : begin + rows] for t in tensors) for begin in range(0, len(tensors[0]), rows))


def _chunk_rows(hidden: Tensor, weight: Tensor) -> int:
    return max(CHUNK.get(hidden.device.type, CHUNK["cuda"]) // weight.shape[0], 1)


def _turn_rows(logits: Tensor) -> int:
    return max(BLOCK.get(logits.device.type, BLOCK["cuda"]) // logits.shape[1], 1)


def _logprobs(logits: Tensor, *columns: Tensor, errors: bool) -> Tensor:
    """Log-probabilities [N, 1] of targets [N]; with ``errors``, ``logits`` [N, V] become softmax minus one-hot."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    logprobs = torch.empty((len(logits), 1), dtype=wide, device=logits.device)
    for block, out, wanted in _blocks(_turn_rows(logits), logits, logprobs[:, 0], *columns):
        scores = block.to(wide)
        weights = torch.softmax(scores, 1)
        # The largest weight is 1 / sum exp(score - largest score), so it gives the normalizer without another pass.
        normalizer = scores.amax(1) - weights.amax(1).log()
        torch.sub(scores.gather(1, wanted[:, None])[:, 0], normalizer, out=out)
        if errors:
            block.copy_(weights.scatter_add_(1, wanted[:, None], weights.new_full((len(wanted), 1), -1.0)))
    return logprobs


def _distilled(loss: Distillation, logits: Tensor, *columns: Tensor, errors: bool) -> Tensor:
    """``loss.values`` [N, 3] of logits [N, V]; with ``errors``, these become its slopes."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    values = torch.empty((len(logits), 3), dtype=wide, device=logits.device)
    for block, out, targets, ids, logprobs in _blocks(_turn_rows(logits), logits, values, *columns):
        scores, given = block.to(wide), (targets, ids, logprobs.to(wide))
        log_normalizers = loss.log_normalizers(scores, *given)
        out.copy_(loss.values(log_normalizers, loss.gathered_logits(scores, *given), *given))
        if errors:
            block.copy_(loss.grad(scores, log_normalizers, *given))
    return values


def preference_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Ranking loss of a reward model without margin, summed over pairs: -log sigmoid(chosen - rejected).

    Scores are [P]. Llama 3 report, section 4.1.2, which drops Llama 2's margin term.
    """
    return -F.logsigmoid(chosen - rejected).sum()


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Tensor:
    """Direct preference optimisation (Rafailov et al., arXiv 2305.18290, eq. 7), summed over pairs.

    All arguments are log-probabilities of whole answers, [P].
    """
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -F.logsigmoid(beta * margin).sum()


def sums_by_document(values: Tensor, documents: Tensor, count: int) -> Tensor:
    """Add up ``values`` [N] by document number [N] into [count]."""
    return torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, documents, values)
