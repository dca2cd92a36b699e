"""Embedding, log-probabilities and likeliest tokens over a vocabulary cut between ranks: none has whole logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from herdlm.parallel.collectives import scattered_sum, total
from herdlm.parallel.linear import local

ROWS_AT_ONCE = 2048  # targets whose logits over this rank's vocabulary exist at a time


def first_row(vocab_size: int, ranks: int, rank: int) -> int:
    """The first entry of a rank; entries are dealt in equal runs of which the last may be shorter."""
    return rank * -(-vocab_size // ranks)


class ParallelEmbedding(nn.Embedding):
    """An embedding of which this rank holds the rows from ``start``."""

    group: dist.ProcessGroup
    start: int

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T] -> [B, T / n, D]."""
        rows = local(self.weight)
        here = tokens - self.start
        absent = (here < 0) | (here >= len(rows))
        found = F.embedding(here.masked_fill(absent, 0), rows)
        return scattered_sum(found.masked_fill(absent[..., None], 0.0), self.group)


def _slices(hidden: Tensor) -> list[slice]:
    """Runs of rows to work on at a time."""
    return [slice(at, at + ROWS_AT_ONCE) for at in range(0, len(hidden), ROWS_AT_ONCE)]


class _Logprobs(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by place
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, start: int, group: dist.ProcessGroup
    ) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        here = targets - start
        present = (here >= 0) & (here < len(weight))
        here = here.masked_fill(~present, 0)
        norms, found = torch.empty(2, len(targets), dtype=exact, device=hidden.device)
        for rows in _slices(hidden):
            logits = F.linear(hidden[rows], weight).to(exact)
            norms[rows] = logits.logsumexp(-1)
            found[rows] = logits.gather(-1, here[rows][:, None])[:, 0] * present[rows]
        largest = total(norms, group, "max")
        sums, found = total(torch.stack(((norms - largest).exp(), found)), group)
        norms = largest + sums.log()
        ctx.save_for_backward(hidden, weight, here, present, norms)
        logprobs: Tensor = found - norms
        return logprobs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        hidden, weight, here, present, norms = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight, dtype=norms.dtype)
        for rows in _slices(hidden):
            logits = F.linear(hidden[rows], weight).to(norms.dtype)
            slope = -(logits - norms[rows][:, None]).exp()
            slope.scatter_add_(-1, here[rows][:, None], present[rows][:, None].to(slope.dtype))
            slope = (slope * grads[0][rows][:, None]).to(hidden.dtype)
            to_hidden[rows] = slope @ weight
            to_weight += slope.mT @ hidden[rows]
        return to_hidden, to_weight.to(weight.dtype), None, None, None


def vocabulary_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, start: int, group: dist.ProcessGroup
) -> Tensor:
    """Log-probability of each target, [N] in at least float32.

    Args:
        hidden: [N, D], the same on all ranks; its gradient on each is that of the rank's own entries.
        weight: [V / n, D], the head's rows from ``start``.
        targets: [N], numbers in the whole vocabulary.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    out: Tensor = _Logprobs.apply(hidden, weight, targets, start, group)  # type: ignore[no-untyped-call]
    return out


@torch.no_grad()
def most_likely(hidden: Tensor, weight: Tensor, start: int, group: dist.ProcessGroup | None) -> Tensor:
    """The entry of the largest logit at each place, the first of equals as of the whole vocabulary, [N].

    Args:
        hidden, weight, start: as for :func:`vocabulary_logprobs`.
        group: None where the vocabulary is whole.
    """
    if not len(hidden):
        return torch.zeros(0, dtype=torch.int64, device=hidden.device)
    found = [F.linear(hidden[rows], weight).max(-1) for rows in _slices(hidden)]
    entries = torch.cat([slice_.indices for slice_ in found]) + start
    if group is None:
        return entries
    values = torch.cat([slice_.values for slice_ in found]).float()
    elsewhere = values < total(values, group, "max")
    return total(entries.masked_fill(elsewhere, torch.iinfo(entries.dtype).max), group, "min")
