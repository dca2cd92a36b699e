"""Objectives of the training loop: each turns a batch into a summed loss and its normalizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from herdlm.model.attention import DocumentAttention
from herdlm.model.distillation import Distillation, distilled
from herdlm.model.losses import sums_by_document, target_logprobs
from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Batch


class OutputHead(Protocol):
    """Turns hidden states [N, D] of a batch into what a loss needs, however batch and vocabulary are sharded."""

    def target_logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of each target, [N]."""
        ...

    def distilled(
        self, hidden: Tensor, targets: Tensor, ids: Tensor, logprobs: Tensor, loss: Distillation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Minus ``loss``, the target's log-probability, and the divergence from a teacher at each target, [N] each.

        The teacher is given by its log-probabilities [N, K] of tokens ``ids`` [N, K].
        """
        ...

    def scores_at(self, hidden: Tensor, ends: str) -> Tensor:
        """Scores of the batch's pairs, at the places that its column ``ends`` holds."""
        ...

    def sums_by_document(self, values: Tensor, documents: Tensor) -> Tensor:
        """Sums of ``values`` [N] by document number [N], for all documents."""
        ...


@dataclass(frozen=True, slots=True)
class WholeOutputHead:
    """The output head of a model and a batch that are whole in this process."""

    model: Transformer
    batch: Batch

    def target_logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """See :class:`OutputHead`."""
        return target_logprobs(self.model, hidden, targets)

    def distilled(
        self, hidden: Tensor, targets: Tensor, ids: Tensor, logprobs: Tensor, loss: Distillation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`OutputHead`."""
        return distilled(self.model, hidden, targets, ids, logprobs, loss=loss)

    def scores_at(self, hidden: Tensor, ends: str) -> Tensor:
        """See :class:`OutputHead`."""
        return self.model.scores(hidden[self.batch.columns[ends]])

    def sums_by_document(self, values: Tensor, documents: Tensor) -> Tensor:
        """See :class:`OutputHead`."""
        return sums_by_document(values, documents, self.batch.document_count)


@runtime_checkable
class Objective(Protocol):
    """A loss over batches, summed so that micro-batches and processes add up; the loop divides by the normalizers."""

    def normalizer(self, batch: Batch) -> float:
        """The batch's share of what the loss is divided by: the weight of its targets, or the number of its pairs."""
        ...

    def prepare(
        self, batches: Sequence[Batch], logprobs: Callable[[Sequence[Batch]], Sequence[Tensor]]
    ) -> Sequence[Batch]:
        """A step's micro-batches with what its loss needs of all of them; ``logprobs`` reads targets as forward.py."""
        return batches

    def read(self, output_head: OutputHead, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over the batch, of hidden states [B * T, D], and sums of what else to log (no gradients)."""
        ...

    def loss(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """As :meth:`read`, for a model and a batch that are whole in this process."""
        return self.read(WholeOutputHead(model, batch), hidden_states(model, batch), batch)


def hidden_states(model: Transformer, batch: Batch) -> Tensor:
    """Hidden states of every token of the batch, [B * T, D]."""
    attend = DocumentAttention((batch.origin or batch).documents, batch.tokens.device)
    hidden: Tensor = model(batch.tokens, batch.positions, attend)
    return hidden.flatten(0, 1)


@dataclass(frozen=True, slots=True)
class NextToken(Objective):
    """Cross-entropy on weighted targets: pre-training, annealing and supervised fine-tuning."""

    def normalizer(self, batch: Batch) -> float:
        """The weight of all targets."""
        return float(batch.weights.sum(dtype=torch.float64))

    def read(self, output_head: OutputHead, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Objective`. The head runs only where there is a target."""
        weights, here = batch.weights.flatten(), batch.target_places()
        logprobs = output_head.target_logprobs(hidden[here], batch.targets.flatten()[here])
        return -(logprobs * weights[here]).sum(), {}
