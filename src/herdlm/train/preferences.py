"""Learning from ranked pairs of answers: the reward model's objective, and direct preference optimization (DPO)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from herdlm.model.losses import at_least_float
from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Batch
from herdlm.train.objectives import Objective, OutputHead, WholeOutputHead, hidden_states


@dataclass(frozen=True, slots=True)
class Reward(Objective):
    """Ranking loss on the scores of chosen and rejected answers (Llama 3 report, section 4.1.2)."""

    def normalizer(self, batch: Batch) -> float:
        """The number of pairs in the batch."""
        return float(len(batch.columns["chosen"]))

    def read(self, output_head: OutputHead, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Objective`; logs how many pairs are ranked correctly."""
        chosen, rejected = (at_least_float(output_head.scores_at(hidden, f"{s}_end")) for s in ("chosen", "rejected"))
        return preference_loss(chosen, rejected), {"accuracy": (chosen > rejected).sum()}


@dataclass(frozen=True, slots=True)
class DPO(Objective):
    """Direct preference optimization with a likelihood term on the chosen answer (report, section 4.1.4).

    The reference model is not in memory: its log-probabilities are columns of the data. ``nll_weight`` weighs the mean
    negative log-likelihood per token of the chosen answer, which keeps its probability from falling with the rejected
    one's.
    """

    beta: float = 0.1
    nll_weight: float = 0.2

    def normalizer(self, batch: Batch) -> float:
        """The number of pairs in the batch."""
        return float(len(batch.columns["chosen"]))

    def read(self, output_head: OutputHead, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Objective`; logs pairs ranked correctly and the drift of both log-probabilities."""
        sums, lengths = read_answers(output_head, hidden, batch)
        chosen, rejected = sums[batch.columns["chosen"]], sums[batch.columns["rejected"]]
        before_chosen, before_rejected = batch.columns["reference_chosen"], batch.columns["reference_rejected"]
        nll = -(chosen / lengths[batch.columns["chosen"]].clamp(min=1)).sum()
        loss = dpo_loss(chosen, rejected, before_chosen, before_rejected, self.beta) + self.nll_weight * nll
        gains, losses = (chosen - before_chosen).detach(), (rejected - before_rejected).detach()
        logged = {"accuracy": (gains > losses).sum(), "chosen_drift": gains.sum(), "rejected_drift": losses.sum()}
        return loss, logged


def answer_logprobs(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probability and length in tokens of each document's targets, each [documents] float32."""
    return read_answers(WholeOutputHead(model, batch), hidden_states(model, batch), batch)


def read_answers(output_head: OutputHead, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """As :func:`answer_logprobs`, from hidden states [B * T, D]."""
    here = batch.target_places()
    logprobs = output_head.target_logprobs(hidden[here], batch.targets.flatten()[here])
    documents = batch.documents.flatten()[here]
    return (
        output_head.sums_by_document(logprobs, documents),
        output_head.sums_by_document(torch.ones_like(logprobs), documents),
    )


def preference_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Ranking loss of a reward model without margin, summed over pairs: -log sigmoid(chosen - rejected).

    Scores are [P]. Llama 3 report, section 4.1.2, which drops Llama 2's margin term.
    """
    return -F.logsigmoid(chosen - rejected).sum()


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Tensor:
    """Direct preference optimization (Rafailov et al., arXiv 2305.18290, eq. 7), summed over pairs.

    All arguments are log-probabilities of whole answers, [P].
    """
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -F.logsigmoid(beta * margin).sum()
