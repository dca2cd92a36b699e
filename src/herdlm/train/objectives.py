"""What a run of the loop optimises. An objective turns a batch into a summed loss and says what to divide it by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from herdlm.model.attention import DocumentAttention
from herdlm.model.distillation import Distillation
from herdlm.model.losses import at_least_float, distilled, dpo_loss, preference_loss, sums_by_document, target_logprobs
from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Batch
from herdlm.tokens.teacher import TEACHER_COLUMNS


class Readout(Protocol):
    """What an objective reads from hidden states [N, D] of a batch, however batch and vocabulary are cut."""

    def target_logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of each target, [N]."""
        ...

    def distilled(
        self, hidden: Tensor, targets: Tensor, ids: Tensor, logprobs: Tensor, loss: Distillation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Minus ``loss``, the target's log-probability and the divergence from a teacher at each target, [N] each.

        The teacher is given by its log-probabilities [N, K] of tokens ``ids`` [N, K].
        """
        ...

    def scores_at(self, hidden: Tensor, ends: str) -> Tensor:
        """Scores at the ends of documents that a column of the batch names, for each of its pairs."""
        ...

    def sums_by_document(self, values: Tensor, documents: Tensor) -> Tensor:
        """``values`` [N] added up by document number [N], over all documents."""
        ...


@dataclass(frozen=True, slots=True)
class WholeReadout:
    """The readout of a model and a batch that are whole."""

    model: Transformer
    batch: Batch

    def target_logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """See :class:`Readout`."""
        return target_logprobs(self.model, hidden, targets)

    def distilled(
        self, hidden: Tensor, targets: Tensor, ids: Tensor, logprobs: Tensor, loss: Distillation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Readout`."""
        return distilled(self.model, hidden, targets, ids, logprobs, loss=loss)

    def scores_at(self, hidden: Tensor, ends: str) -> Tensor:
        """See :class:`Readout`."""
        return self.model.scores(hidden[self.batch.columns[ends]])

    def sums_by_document(self, values: Tensor, documents: Tensor) -> Tensor:
        """See :class:`Readout`."""
        return sums_by_document(values, documents, self.batch.document_count)


class Objective(Protocol):
    """A loss over batches."""

    def normalizer(self, batch: Batch) -> float:
        """What the batch adds to the global divisor: the weight of its targets, or its pairs."""
        ...

    def read(self, readout: Readout, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over the batch, of hidden states [B * T, D], and sums of what else is worth logging."""
        ...

    def loss(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """As :meth:`read`, of a model and a batch that are whole."""
        return self.read(WholeReadout(model, batch), hidden_states(model, batch), batch)


def hidden_states(model: Transformer, batch: Batch) -> Tensor:
    """Hidden states of every token of the batch, [B * T, D]."""
    attend = DocumentAttention((batch.origin or batch).documents, batch.tokens.device)
    hidden: Tensor = model(batch.tokens, batch.positions, attend)
    return hidden.flatten(0, 1)


def answer_logprobs(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probability and length in tokens of each document's targets, each [documents] float32."""
    return read_answers(WholeReadout(model, batch), hidden_states(model, batch), batch)


def read_answers(readout: Readout, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """As :func:`answer_logprobs`, of hidden states [B * T, D]."""
    here = batch.target_places()
    logprobs = readout.target_logprobs(hidden[here], batch.targets.flatten()[here])
    documents = batch.documents.flatten()[here]
    return (
        readout.sums_by_document(logprobs, documents),
        readout.sums_by_document(torch.ones_like(logprobs), documents),
    )


@dataclass(frozen=True, slots=True)
class NextToken(Objective):
    """Cross-entropy on weighted targets: pre-training, annealing and supervised fine-tuning."""

    def normalizer(self, batch: Batch) -> float:
        """The weight of all targets."""
        return float(batch.weights.sum(dtype=torch.float64))

    def read(self, readout: Readout, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Objective`. The head runs only where there is a target."""
        weights, here = batch.weights.flatten(), batch.target_places()
        logprobs = readout.target_logprobs(hidden[here], batch.targets.flatten()[here])
        return -(logprobs * weights[here]).sum(), {}


@dataclass(frozen=True, slots=True)
class Distill(Objective):
    """A student learns a teacher's distribution of the next token beside the token itself.

    The teacher is not in memory: the columns ``teacher_ids`` and ``teacher_logprobs`` of the data, [B, T, K], are its K
    most likely tokens at every target and their log-probabilities at ``temperature``. ``weight`` is the teacher's part
    of the loss; see :class:`herdlm.model.distillation.Distillation`.
    """

    weight: float = 0.5
    temperature: float = 1.0

    def normalizer(self, batch: Batch) -> float:
        """The weight of all targets."""
        return float(batch.weights.sum(dtype=torch.float64))

    def read(self, readout: Readout, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Objective`; logs the divergence from the teacher and the next-token loss, in nats per target."""
        weights, here = batch.weights.flatten(), batch.target_places()
        ids, logprobs = (batch.columns[name].flatten(0, 1)[here] for name in TEACHER_COLUMNS)
        values, targets, divergence = readout.distilled(
            hidden[here], batch.targets.flatten()[here], ids, logprobs, Distillation(self.weight, self.temperature)
        )
        counted = weights[here]
        logged = {"teacher_kl": (divergence * counted).sum(), "next_token_loss": -(targets * counted).sum()}
        return -(values * counted).sum(), logged


@dataclass(frozen=True, slots=True)
class Reward(Objective):
    """Ranking loss on the scores of chosen and rejected answers (Llama 3 report, section 4.1.2)."""

    def normalizer(self, batch: Batch) -> float:
        """Pairs in the batch."""
        return float(len(batch.columns["chosen"]))

    def read(self, readout: Readout, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Objective`; logs how many pairs are ranked right."""
        chosen, rejected = (at_least_float(readout.scores_at(hidden, f"{s}_end")) for s in ("chosen", "rejected"))
        return preference_loss(chosen, rejected), {"accuracy": (chosen > rejected).sum()}


@dataclass(frozen=True, slots=True)
class DPO(Objective):
    """Direct preference optimisation with a likelihood term on the chosen answer (report, section 4.1.4).

    The reference model is not in memory: its log-probabilities are columns of the data. ``nll_weight`` weighs the mean
    negative log-likelihood per token of the chosen answer, which keeps its probability from falling with the rejected
    one's.
    """

    beta: float = 0.1
    nll_weight: float = 0.2

    def normalizer(self, batch: Batch) -> float:
        """Pairs in the batch."""
        return float(len(batch.columns["chosen"]))

    def read(self, readout: Readout, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Objective`; logs pairs ranked right and the drift of both log-probabilities."""
        sums, lengths = read_answers(readout, hidden, batch)
        chosen, rejected = sums[batch.columns["chosen"]], sums[batch.columns["rejected"]]
        before_chosen, before_rejected = batch.columns["reference_chosen"], batch.columns["reference_rejected"]
        nll = -(chosen / lengths[batch.columns["chosen"]].clamp(min=1)).sum()
        loss = dpo_loss(chosen, rejected, before_chosen, before_rejected, self.beta) + self.nll_weight * nll
        gains, losses = chosen - before_chosen, rejected - before_rejected
        logged = {"accuracy": (gains > losses).sum(), "chosen_drift": gains.sum(), "rejected_drift": losses.sum()}
        return loss, logged
