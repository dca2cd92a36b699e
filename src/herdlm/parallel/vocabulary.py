"""Embedding, losses and most likely tokens over a vocabulary sharded between ranks: no rank has whole logits."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from herdlm.model.distillation import Distillation
from herdlm.parallel.collectives import all_reduce, autograd_reduce_scatter
from herdlm.parallel.linear import local

ROWS_AT_ONCE = 2048  # targets whose logits over this rank's vocabulary exist at a time


class ParallelEmbedding(nn.Embedding):
    """An embedding; this rank holds its rows from ``start``."""

    group: dist.ProcessGroup
    start: int

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T] -> [B, T / n, D]."""
        rows = local(self.weight)
        here = tokens - self.start
        absent = (here < 0) | (here >= len(rows))
        embedded = F.embedding(here.masked_fill(absent, 0), rows)
        return autograd_reduce_scatter(embedded.masked_fill(absent[..., None], 0.0), self.group)


def _slices(hidden: Tensor) -> list[slice]:
    """Runs of rows to process at a time; a single empty one if there are no rows."""
    return [slice(at, at + ROWS_AT_ONCE) for at in range(0, max(len(hidden), 1), ROWS_AT_ONCE)]


class _RowLoss(Protocol):
    """A loss of rows of logits whose columns are sharded; see :class:`herdlm.model.distillation.Distillation`.

    The first of its values is minus the loss.
    """

    def log_normalizers(self, logits: Tensor, *columns: Tensor) -> Tensor: ...

    def gathered_logits(self, logits: Tensor, *columns: Tensor) -> Tensor: ...

    def values(self, log_normalizers: Tensor, gathered_logits: Tensor, *columns: Tensor) -> Tensor: ...

    def grad(self, logits: Tensor, log_normalizers: Tensor, *columns: Tensor) -> Tensor: ...


class _NextToken:
    """Cross-entropy with a target, which is -1 if another rank holds it."""

    def log_normalizers(self, logits: Tensor, *_: Tensor) -> Tensor:
        return logits.logsumexp(1, keepdim=True)

    def gathered_logits(self, logits: Tensor, *columns: Tensor) -> Tensor:
        (targets,) = columns
        return logits.gather(1, targets.clamp(min=0)[:, None]) * (targets >= 0)[:, None]

    def values(self, log_normalizers: Tensor, gathered_logits: Tensor, *_: Tensor) -> Tensor:
        return gathered_logits - log_normalizers

    def grad(self, logits: Tensor, log_normalizers: Tensor, *columns: Tensor) -> Tensor:
        (targets,) = columns
        here = (targets >= 0)[:, None].to(logits.dtype)
        return (logits - log_normalizers).exp().scatter_add_(1, targets.clamp(min=0)[:, None], -here)


class _OverRanks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, loss: _RowLoss, group: dist.ProcessGroup, *columns: Tensor
    ) -> tuple[Tensor, ...]:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        mine = []
        for rows in _slices(hidden):
            logits, here = F.linear(hidden[rows], weight).to(exact), [column[rows] for column in columns]
            mine.append((loss.log_normalizers(logits, *here), loss.gathered_logits(logits, *here)))
        log_normalizers, gathered_logits = (torch.cat(parts) for parts in zip(*mine, strict=True))
        # A rank, or all of them, may have nothing to sum: the logarithm is then minus infinity.
        largest = all_reduce(log_normalizers, group, "max").clamp(min=torch.finfo(exact).min)
        sums = all_reduce(torch.cat(((log_normalizers - largest).exp(), gathered_logits), 1), group)
        log_normalizers, gathered_logits = (
            largest + sums[:, : log_normalizers.shape[1]].log(),
            sums[:, log_normalizers.shape[1] :],
        )
        ctx.save_for_backward(hidden, weight, log_normalizers, *columns)
        ctx.loss = loss
        first, *others = (value.clone() for value in loss.values(log_normalizers, gathered_logits, *columns).unbind(1))
        ctx.mark_non_differentiable(*others)
        return first, *others

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        hidden, weight, log_normalizers, *columns = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight, dtype=log_normalizers.dtype) if ctx.needs_input_grad[1] else None
        for rows in _slices(hidden):
            logits = F.linear(hidden[rows], weight).to(log_normalizers.dtype)
            slope = ctx.loss.grad(logits, log_normalizers[rows], *(column[rows] for column in columns))
            slope = (slope * -grads[0][rows][:, None]).to(hidden.dtype)
            to_hidden[rows] = slope @ weight
            if to_weight is not None:
                to_weight += slope.mT @ hidden[rows]
        return to_hidden, None if to_weight is None else to_weight.to(weight.dtype), *[None] * (len(columns) + 2)


def vocabulary_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, start: int, group: dist.ProcessGroup
) -> Tensor:
    """Log-probability of each target, [N] in at least float32.

    Args:
        hidden: [N, D], the same on all ranks; each rank's gradient is that of its own entries.
        weight: [V / n, D], the head's rows from ``start``.
        targets: [N], numbers in the whole vocabulary.
    """
    return _over_ranks(hidden, weight, _NextToken(), group, _places(targets, start, weight))[0]


def vocabulary_distilled(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    ids: Tensor,
    logprobs: Tensor,
    *,
    loss: Distillation,
    start: int,
    group: dist.ProcessGroup,
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`herdlm.model.distillation.linear_distilled`, with the head's rows sharded over ``group``.

    ``start`` and ``group`` are as for :func:`vocabulary_logprobs`. Each rank computes the teacher's tokens and the tail
    among its own entries.
    """
    given = logprobs.to(torch.promote_types(hidden.dtype, torch.float32))
    places = (_places(targets, start, weight), _places(ids, start, weight))
    loss_values, logprobs_of_targets, divergence = _over_ranks(hidden, weight, loss, group, *places, given)
    return loss_values, logprobs_of_targets, divergence


def _places(tokens: Tensor, start: int, weight: Tensor) -> Tensor:
    """The indices of tokens among this rank's entries; -1 for those of other ranks."""
    places = tokens - start
    return places.masked_fill((places < 0) | (places >= len(weight)), -1)


def _over_ranks(
    hidden: Tensor, weight: Tensor, loss: _RowLoss, group: dist.ProcessGroup, *columns: Tensor
) -> tuple[Tensor, ...]:
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    out: tuple[Tensor, ...] = _OverRanks.apply(hidden, weight, loss, group, *columns)  # type: ignore[no-untyped-call]
    return out


@torch.no_grad()
def most_likely(hidden: Tensor, weight: Tensor, start: int, group: dist.ProcessGroup | None) -> Tensor:
    """The token of the largest logit for each hidden state, the first of equals in the whole vocabulary, [N].

    Args:
        hidden, weight, start: as for :func:`vocabulary_logprobs`.
        group: None if the vocabulary is whole.
    """
    if not len(hidden):
        return torch.zeros(0, dtype=torch.int64, device=hidden.device)
    maxima = [F.linear(hidden[rows], weight).max(-1) for rows in _slices(hidden)]
    entries = torch.cat([maximum.indices for maximum in maxima]) + start
    if group is None:
        return entries
    values = torch.cat([maximum.values for maximum in maxima]).float()
    elsewhere = values < all_reduce(values, group, "max")
    return all_reduce(entries.masked_fill(elsewhere, torch.iinfo(entries.dtype).max), group, "min")
