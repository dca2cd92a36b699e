"""Learning from judged answers: the reward model's objective, and preference optimization on pairs and on thumbs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from herdlm.base.errors import InputError
from herdlm.model.losses import at_least_float, sums_by_document
from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Batch
from herdlm.train.objectives import Objective, OutputHead, WholeOutputHead, hidden_states
from herdlm.train.preference_losses import PAIR_LOSSES, kto_loss, preference_loss

REMEDY = "Compute the columns first: herdlm.align.dpo.with_reference"


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

    Args:
        kind: a name in :data:`herdlm.train.preference_losses.PAIR_LOSSES`; "simpo" uses no reference.
        gamma: the margin that "simpo" asks for, in units of its reward (beta times the log-probability per token).
            Papers that give a ratio to beta mean gamma / beta.

    Raises:
        InputError: there is no such loss, or ``gamma`` is given for one that has no margin.
    """

    beta: float = 0.1
    nll_weight: float = 0.2
    kind: str = "sigmoid"
    gamma: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in PAIR_LOSSES:
            raise InputError(f"there is no loss {self.kind!r} on pairs", f"Use one of {', '.join(PAIR_LOSSES)}")
        if self.gamma and self.kind != "simpo":
            raise InputError(f"gamma has no meaning with the loss {self.kind!r}", "Drop it, or use simpo")

    def normalizer(self, batch: Batch) -> float:
        """The number of pairs in the batch."""
        return float(len(batch.columns["chosen"]))

    def read(self, output_head: OutputHead, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Objective`.

        Logs the pairs ranked correctly, the margin, and each side's log-probability per token. With a reference it
        also logs how far both moved from it, per answer and per token.
        """
        all_sums, all_lengths = read_answers(output_head, hidden, batch)
        sums = {side: all_sums[batch.columns[side]] for side in ("chosen", "rejected")}
        lengths = {side: all_lengths[batch.columns[side]].clamp(min=1) for side in sums}
        ratios = sums
        if self.kind != "simpo":
            ratios = {side: sums[side] - _reference(batch, f"reference_{side}", self.kind) for side in sums}
        if self.kind in ("norm", "simpo"):
            ratios = {side: ratios[side] / lengths[side] for side in sums}
        losses = PAIR_LOSSES[self.kind](ratios["chosen"], ratios["rejected"], self.beta, self.gamma)
        total = losses.sum() - self.nll_weight * (sums["chosen"] / lengths["chosen"]).sum()
        margin = (ratios["chosen"] - ratios["rejected"]).detach()
        logged = {"accuracy": (margin > 0).sum(), "margin": margin.sum()}
        for side, value in sums.items():
            logged[f"{side}_logprob"] = (value.detach() / lengths[side]).sum()
            if f"reference_{side}" in batch.columns:
                drift = value.detach() - batch.columns[f"reference_{side}"]
                logged[f"{side}_drift"] = drift.sum()
                logged[f"{side}_drift_per_token"] = (drift / lengths[side]).sum()
        return total, logged


@dataclass(frozen=True, slots=True)
class KTO(Objective):
    """Kahneman-Tversky optimization on single answers with a thumb up or down (Ethayarajh et al., arXiv 2402.01306).

    The reference's log-probabilities are columns of the data. The point that rewards are compared with is the mean
    log-ratio of prompts with answers to other prompts, at least 0. It is over all thumbs of a step: before the step,
    the current policy reads their mismatched answers, without gradients.
    """

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def normalizer(self, batch: Batch) -> float:
        """The number of thumbs in the batch."""
        return float(len(batch.columns["answer"]))

    def prepare(self, batches: Sequence[Batch], logprobs: Callable[[Sequence[Batch]], Sequence[Tensor]]) -> list[Batch]:
        """See :class:`Objective`; adds the column ``kl``, the same number for every thumb of the step."""
        probes = [batch.probe for batch in batches if batch.probe is not None]
        assert len(probes) == len(batches), "KTO needs batches of thumbs"
        ratios = []
        for probe, values in zip(probes, logprobs(probes), strict=True):
            sums = sums_by_document(values.flatten(), probe.documents.flatten(), probe.document_count)
            ratios.append(sums[probe.columns["answer"]] - _reference(probe, "reference", "kto"))
        kl = float(torch.cat(ratios).mean().clamp(min=0))
        return [
            replace(batch, columns=batch.columns | {"kl": torch.full((len(batch.columns["answer"]),), kl)})
            for batch in batches
        ]

    def read(self, output_head: OutputHead, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Objective`.

        Logs the share of thumbs up, the share on the right side of the KL, the KL itself, and how far the answers of
        either kind moved from the reference per token, added up over the kind and divided by all thumbs.
        """
        sums, lengths = read_answers(output_head, hidden, batch)
        answers = batch.columns["answer"]
        ratios, is_up = sums[answers] - _reference(batch, "reference", "kto"), batch.columns["label"]
        kl = batch.columns["kl"].to(ratios.dtype)
        losses = kto_loss(ratios, kl, is_up, self.beta)
        weights = torch.where(is_up, self.desirable_weight, self.undesirable_weight)
        drift = ratios.detach() / lengths[answers].clamp(min=1)
        logged = {
            "kl": kl.sum(),
            "accuracy": ((ratios.detach() > kl) == is_up).sum(),
            "desirable_share": is_up.sum(),
            "desirable_drift_per_token": (drift * is_up).sum(),
            "undesirable_drift_per_token": (drift * ~is_up).sum(),
        }
        return (losses * weights).sum(), logged


def _reference(batch: Batch, column: str, loss: str) -> Tensor:
    if column not in batch.columns:
        raise InputError(f"the loss {loss!r} needs the reference model's log-probabilities ({column})", REMEDY)
    return batch.columns[column]


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
