"""Policy gradient on sampled answers with advantages: GRPO (Shao et al., arXiv 2402.03300) and its variants."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from herdlm.base.errors import InputError
from herdlm.tokens.batch import Batch
from herdlm.train.objectives import Objective, OutputHead


@dataclass(frozen=True, slots=True)
class PolicyGradient(Objective):
    """The clipped policy gradient, with a pull toward a reference model if ``kl_weight`` is above 0.

    A batch's weights say what each token's loss counts, so they choose the mean: over tokens, or over answers. Columns,
    [B, T] each: ``advantage``; ``share``, whose sum is what the loss is divided by; ``mean``, which makes of that
    division a mean over tokens, for figures; ``old``, log-probabilities under the policy that sampled, missing in the
    first update, where the policy is the one that sampled and each ratio is exactly 1; ``reference``, those of the
    reference; ``engine``, those that the engine reported, at temperature 1.

    Args:
        clip_low, clip_high: how far below and above 1 the ratio to the old policy counts; apart from each other in DAPO
            (Yu et al., arXiv 2503.14476).
        kl_weight: of the divergence from the reference, by the estimator k3 (Schulman 2020): r - 1 - log r for the
            ratio r of reference to policy. It is never negative, and unbiased for the policy's own samples.
        temperature: at which answers were sampled; log-probabilities are those of the logits divided by it.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_weight: float = 0.0
    temperature: float = 1.0

    def normalizer(self, batch: Batch) -> float:
        """The batch's tokens, or its answers, that are trained on."""
        return float(batch.columns["share"].sum(dtype=torch.float64))

    def read(self, output_head: OutputHead, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Objective`.

        Logs means over tokens: ``entropy`` (of minus the log-probability, in the first update an unbiased estimate of
        the policy's entropy), ``clipped`` (the share whose gradient the clip removes), ``kl`` from the reference, and
        ``mismatch``, by how many nats engine and training differ.
        """
        here = batch.target_places()
        targets, weights = batch.targets.flatten()[here], batch.weights.flatten()[here]
        columns = {name: column.flatten()[here] for name, column in batch.columns.items()}
        if self.kl_weight and "reference" not in columns:
            raise InputError("kl_weight needs the reference's log-probabilities", "Add the column reference")
        hidden = hidden[here]
        logprobs = output_head.target_logprobs(hidden / self.temperature, targets)
        advantages = columns["advantage"]
        ratios = torch.exp(logprobs - columns.get("old", logprobs.detach()))
        losses = policy_loss(ratios, advantages, self.clip_low, self.clip_high)
        now, mean = logprobs.detach(), columns["mean"]
        logged = {"entropy": -(now * mean).sum()}
        logged["clipped"] = (is_clipped(ratios.detach(), advantages, self.clip_low, self.clip_high) * mean).sum()
        if "reference" in columns:
            divergence = k3(logprobs, columns["reference"])
            losses = losses + self.kl_weight * divergence
            logged["kl"] = (divergence.detach() * mean).sum()
        if "engine" in columns:
            if self.temperature != 1:
                with torch.no_grad():
                    now = output_head.target_logprobs(hidden, targets)
            logged["mismatch"] = ((now - columns["engine"]).abs() * mean).sum()
        return (losses * weights).sum(), logged


def policy_loss(ratios: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Minus the lesser of clipped and unclipped objective, for each token (PPO, arXiv 1707.06347, equation 7)."""
    clipped = ratios.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratios * advantages, clipped * advantages)


def is_clipped(ratios: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Where the clip removes a token's gradient."""
    return ((ratios > 1 + clip_high) & (advantages > 0)) | ((ratios < 1 - clip_low) & (advantages < 0))


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """An estimate of the divergence of a policy from a reference, for each of the policy's tokens, in nats."""
    difference = reference - logprobs
    return torch.expm1(difference) - difference
