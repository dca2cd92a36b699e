"""The loss of a student that learns a teacher's distribution, row by row, from any part of the vocabulary.

A teacher is given by its k most likely tokens and their log-probabilities; with k the vocabulary that is all of it.
What it leaves to all other tokens together is one more outcome, the tail: the student is to leave them as much, and
how it deals that out is its own. Taking the k tokens as the whole distribution instead teaches that nothing else ever
comes, which is biased and leaves the student overconfident (Anshumann et al., arXiv 2503.16870). Putting outcomes
together never raises a Kullback-Leibler divergence, so this one is a lower bound of the whole and zero where student
and teacher are equal.

Everything is a function of sums over the vocabulary, so ranks that hold parts of it add up theirs and go on alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from herdlm.model.losses import Way, at_least_float, block_rows, blocks, from_logits, is_plain_head
from herdlm.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class Distillation:
    """(1 - weight) x cross-entropy with the target + weight x temperature ** 2 x cross-entropy with the teacher.

    Both distributions of the second are softmax(logits / temperature); its factor keeps its gradient's size from
    falling with the temperature (Hinton et al., arXiv 1503.02531, section 2).

    Every method takes rows' logits [n, V'] over this part of the vocabulary and three columns of theirs: targets [n]
    and the teacher's tokens [n, k], both as places in the part and -1 where they are in another, and the teacher's
    log-probabilities [n, k] at this temperature. A row's tokens differ from each other.
    """

    weight: float
    temperature: float = 1.0

    def log_normalizers(self, logits: Tensor, *columns: Tensor) -> Tensor:
        """Logarithms of sums of exponentials, [n, 3]: of logits, of logits / temperature, and of those of the tail."""
        _, ids, _ = columns
        scores = logits / self.temperature
        return torch.stack((logits.logsumexp(1), scores.logsumexp(1), _tail(scores, ids).logsumexp(1)), 1)

    def gathered_logits(self, logits: Tensor, *columns: Tensor) -> Tensor:
        """Sums, [n, 2]: of the target's logit, and of logits / temperature weighed by the teacher's probabilities."""
        targets, ids, logprobs = columns
        target = _at(logits, targets[:, None])[:, 0]
        return torch.stack((target, (logprobs.exp() * _at(logits, ids)).sum(1) / self.temperature), 1)

    def values(self, log_normalizers: Tensor, gathered_logits: Tensor, *columns: Tensor) -> Tensor:
        """[n, 3]: minus the loss, the target's log-probability, and the divergence KL(teacher || student) in nats.

        ``log_normalizers`` and ``gathered_logits`` are over the whole vocabulary.
        """
        given = columns[2].exp()
        left = self._left(log_normalizers, given)
        tail = torch.where(left > 0, log_normalizers[:, 2], 0.0)
        target = gathered_logits[:, 0] - log_normalizers[:, 0]
        crossed = (given.sum(1) + left) * log_normalizers[:, 1] - gathered_logits[:, 1] - left * tail
        divergence = crossed + torch.xlogy(given, given).sum(1) + torch.xlogy(left, left)
        return torch.stack(
            ((1 - self.weight) * target - self.weight * self.temperature**2 * crossed, target, divergence), 1
        )

    def grad(self, logits: Tensor, log_normalizers: Tensor, *columns: Tensor) -> Tensor:
        """The loss's gradient in this part's logits, [n, V']."""
        targets, ids, logprobs = columns
        given = logprobs.exp()
        left = self._left(log_normalizers, given)[:, None]
        share = self.weight * self.temperature  # temperature ** 2 x the derivative of logits / temperature
        scores = logits / self.temperature
        grad = (scores - log_normalizers[:, 1:2]).exp() * (share * (given.sum(1, keepdim=True) + left))
        rest = torch.where(left > 0, log_normalizers[:, 2:], torch.inf)
        grad -= share * left * (_tail(scores, ids) - rest).exp()
        _add(grad, ids, -share * given)
        if self.weight < 1:
            grad += (1 - self.weight) * (logits - log_normalizers[:, :1]).exp()
            _add(grad, targets[:, None], torch.full_like(log_normalizers[:, :1], self.weight - 1))
        return grad

    def _left(self, log_normalizers: Tensor, given: Tensor) -> Tensor:
        """The teacher's probability of the tail, [n]; nothing where there is no tail."""
        return torch.where(log_normalizers[:, 2].isfinite(), (1 - given.sum(1)).clamp(min=0), 0.0)


def _tail(scores: Tensor, ids: Tensor) -> Tensor:
    """Scores [n, V'] without those at ``ids``: minus infinity there."""
    named = torch.zeros(scores.shape, dtype=torch.int8, device=scores.device)
    named.scatter_add_(1, ids.clamp(min=0), (ids >= 0).to(torch.int8))
    return scores.masked_fill(named > 0, -torch.inf)


def _at(logits: Tensor, ids: Tensor) -> Tensor:
    """Logits at ``ids``, zero for those that are in another part, [n, k]."""
    return logits.gather(1, ids.clamp(min=0)).masked_fill(ids < 0, 0.0)


def _add(grad: Tensor, ids: Tensor, values: Tensor) -> None:
    """Add ``values`` [n, k] at ``ids``, those in another part left out."""
    grad.scatter_add_(1, ids.clamp(min=0), values.masked_fill(ids < 0, 0.0))


def distilled(
    model: Transformer, hidden: Tensor, targets: Tensor, ids: Tensor, logprobs: Tensor, *, loss: Distillation
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`linear_distilled`, of a model's head, with the exception that :func:`target_logprobs` names."""
    if is_plain_head(model.lm_head, hidden):
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
    found = from_logits(hidden, weight, partial(_distilled, loss), (targets, ids, logprobs), way)
    return found[0], found[1], found[2]


def _distilled(loss: Distillation, logits: Tensor, *columns: Tensor, overwrite: bool) -> Tensor:
    """``loss.values`` [N, 3] of logits [N, V]; with ``overwrite``, these become its slopes."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    values = torch.empty((len(logits), 3), dtype=wide, device=logits.device)
    for block, out, targets, ids, logprobs in blocks(block_rows(logits), logits, values, *columns):
        scores, given = block.to(wide), (targets, ids, logprobs.to(wide))
        log_normalizers = loss.log_normalizers(scores, *given)
        out.copy_(loss.values(log_normalizers, loss.gathered_logits(scores, *given), *given))
        if overwrite:
            block.copy_(loss.grad(scores, log_normalizers, *given))
    return values
