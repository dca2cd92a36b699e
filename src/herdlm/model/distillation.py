"""The loss of a student that learns a teacher's distribution, row by row, from any part of the vocabulary.

The teacher is given by its k most likely tokens and their log-probabilities. The probability of all other tokens is
one more outcome, the tail: the student learns its sum, not how it is divided. Renormalizing the k tokens instead would
teach that no other token ever follows, which is biased and makes the student overconfident (Anshumann et al., arXiv
2503.16870). Merging outcomes never raises a Kullback-Leibler divergence, so this one is a lower bound of the full
divergence, and zero if student and teacher are equal.

The loss is a function of sums over the vocabulary, so ranks that hold parts of it only have to add up these sums.
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

    The second term compares softmax(logits / temperature) of both; its factor keeps the size of its gradient from
    falling as the temperature rises (Hinton et al., arXiv 1503.02531, section 2).

    Every method takes logits [n, V'] over this part of the vocabulary and three columns: targets [n] and the teacher's
    tokens [n, k], both as indices in the part, -1 in any other part, and the teacher's log-probabilities [n, k] at this
    temperature. The tokens of a row are distinct.
    """

    weight: float
    temperature: float = 1.0

    def log_normalizers(self, logits: Tensor, *columns: Tensor) -> Tensor:
        """Log-sum-exps, [n, 3]: of logits, of logits / temperature, and of those in the tail."""
        _, ids, _ = columns
        scores = logits / self.temperature
        return torch.stack((logits.logsumexp(1), scores.logsumexp(1), _tail(scores, ids).logsumexp(1)), 1)

    def gathered_logits(self, logits: Tensor, *columns: Tensor) -> Tensor:
        """[n, 2]: the target's logit, and the sum of logits / temperature weighted by the teacher's probabilities."""
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
        """The teacher's probability of the tail, [n]; 0 without a tail."""
        return torch.where(log_normalizers[:, 2].isfinite(), (1 - given.sum(1)).clamp(min=0), 0.0)


def _tail(scores: Tensor, ids: Tensor) -> Tensor:
    """Scores [n, V'] with minus infinity at ``ids``."""
    named = torch.zeros(scores.shape, dtype=torch.int8, device=scores.device)
    named.scatter_add_(1, ids.clamp(min=0), (ids >= 0).to(torch.int8))
    return scores.masked_fill(named > 0, -torch.inf)


def _at(logits: Tensor, ids: Tensor) -> Tensor:
    """Logits at ``ids``, zero for ids of another part, [n, k]."""
    return logits.gather(1, ids.clamp(min=0)).masked_fill(ids < 0, 0.0)


def _add(grad: Tensor, ids: Tensor, values: Tensor) -> None:
    """Add ``values`` [n, k] at ``ids``, except for ids of another part."""
    grad.scatter_add_(1, ids.clamp(min=0), values.masked_fill(ids < 0, 0.0))


def distilled(
    model: Transformer, hidden: Tensor, targets: Tensor, ids: Tensor, logprobs: Tensor, *, loss: Distillation
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`linear_distilled`, with a model's head; one that is not a plain matrix is called as a module."""
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
    """Minus the loss, the target's log-probability, and the divergence from the teacher, [N] each.

    Only the first has a gradient. Types are those of :func:`herdlm.model.losses.linear_logprobs`.

    Args:
        hidden, weight: hidden states [N, D] and head [V, D].
        targets: [N].
        ids: the teacher's tokens, [N, K], distinct in each row.
        logprobs: the teacher's log-probabilities of these tokens, [N, K].
    """
    values = from_logits(hidden, weight, partial(_distilled, loss), (targets, ids, logprobs), way)
    return values[0], values[1], values[2]


def _distilled(loss: Distillation, logits: Tensor, *columns: Tensor, overwrite: bool) -> Tensor:
    """``loss.values`` [N, 3] of logits [N, V]; with ``overwrite``, the logits become its gradient."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    values = torch.empty((len(logits), 3), dtype=wide, device=logits.device)
    for block, out, targets, ids, logprobs in blocks(block_rows(logits), logits, values, *columns):
        scores, given = block.to(wide), (targets, ids, logprobs.to(wide))
        log_normalizers = loss.log_normalizers(scores, *given)
        out.copy_(loss.values(log_normalizers, loss.gathered_logits(scores, *given), *given))
        if overwrite:
            block.copy_(loss.grad(scores, log_normalizers, *given))
    return values
