"""What a run of the loop optimises. An objective turns a batch into a summed loss and says what to divide it by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from herdlm.model.attention import DocumentAttention
from herdlm.model.losses import dpo_loss, preference_loss, sums_by_document, target_logprobs
from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Batch


class Objective(Protocol):
    """A loss over batches."""

    def normaliser(self, batch: Batch) -> float:
        """What the batch adds to the global divisor: the weight of its targets, or its pairs."""
        ...

    def loss(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The loss summed over the batch, and sums of what else is worth logging."""
        ...


def hidden_states(model: Transformer, batch: Batch) -> Tensor:
    """Hidden states of every token of the batch, [B * T, D]."""
    hidden: Tensor = model(batch.tokens, batch.positions, DocumentAttention(batch.documents))
    return hidden.flatten(0, 1)


def answer_logprobs(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probability and length in tokens of each document's targets, each [documents] float32."""
    here = batch.weights.flatten() > 0
    logprobs = target_logprobs(model, hidden_states(model, batch)[here], batch.targets.flatten()[here])
    documents = batch.documents.flatten()[here]
    count = int(batch.documents.max()) + 1
    return sums_by_document(logprobs, documents, count), sums_by_document(torch.ones_like(logprobs), documents, count)


@dataclass(frozen=True, slots=True)
class NextToken:
    """Cross-entropy on weighted targets: pre-training, annealing and supervised fine-tuning."""

    def normaliser(self, batch: Batch) -> float:
        """The weight of all targets."""
        return float(batch.weights.sum())

    def loss(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """See :class:`Objective`. The head runs only where there is a target."""
        weights = batch.weights.flatten()
        here = weights > 0
        logprobs = target_logprobs(model, hidden_states(model, batch)[here], batch.targets.flatten()[here])
        return -(logprobs * weights[here]).sum(), {}


@dataclass(frozen=True, slots=True)
class Reward:
    """Ranking loss on the scores of chosen and rejected answers (Llama 3 report, section 4.1.2)."""

    def normaliser(self, batch: Batch) -> float:
        """Pairs in the batch."""
        return float(len(batch.columns["chosen"]))

    def loss(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """See :class:`Objective`; logs how many pairs are ranked right."""
        hidden = hidden_states(model, batch)
        chosen, rejected = (model.scores(hidden[batch.columns[f"{s}_end"]]).float() for s in ("chosen", "rejected"))
        return preference_loss(chosen, rejected), {"accuracy": float((chosen > rejected).sum())}


@dataclass(frozen=True, slots=True)
class DPO:
    """Direct preference optimisation with a likelihood term on the chosen answer (report, section 4.1.4).

    The reference model is not in memory: its log-probabilities are columns of the data. ``nll_weight`` weighs the mean
    negative log-likelihood per token of the chosen answer, which keeps its probability from falling with the rejected
    one's.
    """

    beta: float = 0.1
    nll_weight: float = 0.2

    def normaliser(self, batch: Batch) -> float:
        """Pairs in the batch."""
        return float(len(batch.columns["chosen"]))

    def loss(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """See :class:`Objective`; logs pairs ranked right and the drift of both log-probabilities."""
        sums, lengths = answer_logprobs(model, batch)
        chosen, rejected = sums[batch.columns["chosen"]], sums[batch.columns["rejected"]]
        before_chosen, before_rejected = batch.columns["reference_chosen"], batch.columns["reference_rejected"]
        nll = -(chosen / lengths[batch.columns["chosen"]].clamp(min=1)).sum()
        loss = dpo_loss(chosen, rejected, before_chosen, before_rejected, self.beta) + self.nll_weight * nll
        gains, losses = chosen - before_chosen, rejected - before_rejected
        seen = {"accuracy": (gains > losses).sum(), "chosen_drift": gains.sum(), "rejected_drift": losses.sum()}
        return loss, {name: float(value.detach()) for name, value in seen.items()}
