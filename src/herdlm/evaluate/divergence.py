"""The divergence of a changed model, such as a quantized one, from the original, token by token on the same text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Batch
from herdlm.train.objectives import hidden_states

LOGITS_AT_ONCE = 2**24  # of each model: 64 MB as float32


@dataclass(frozen=True, slots=True)
class TokenDivergence:
    """Two models compared at each target of a batch; arrays [N] in the order of the batch.

    Attributes:
        kl: KL(original || changed) of the next-token distributions, in nats.
        agrees: whether both models have the same most likely token.
        original_nats, changed_nats: the target's loss under each model.
        documents: the number of the target's document in the batch.
    """

    kl: NDArray[np.float64]
    agrees: NDArray[np.bool_]
    original_nats: NDArray[np.float64]
    changed_nats: NDArray[np.float64]
    documents: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL(original || changed) over tokens in nats, agreement on the most likely next token, and both losses.

    ``kl`` is the mean. Losses are in nats per token; their exponentials are perplexities.
    """

    kl: float
    kl_p50: float
    kl_p99: float
    kl_max: float
    top1_agreement: float
    tokens: int
    original_nats: float
    changed_nats: float


@torch.no_grad()
def token_divergence(original: Transformer, changed: Transformer, batch: Batch) -> TokenDivergence:
    """Compare next-token distributions at every target of a batch."""
    moved = batch.to(next(original.parameters()).device)
    here = moved.weights.flatten() > 0
    states = [hidden_states(model, moved)[here] for model in (original, changed)]
    targets = moved.targets.flatten()[here]
    chunks: list[list[torch.Tensor]] = [[], [], [], []]
    step = max(1, LOGITS_AT_ONCE // original.config.vocab_size)
    for first in range(0, len(targets), step):
        some = slice(first, first + step)
        p, q = (
            F.log_softmax(model.logits(hidden[some]).float(), -1)
            for model, hidden in zip((original, changed), states, strict=True)
        )
        chunks[0].append((p.exp() * (p - q)).sum(-1).clamp_min(0))  # rounding can make it negative
        chunks[1].append(p.argmax(-1) == q.argmax(-1))
        for side, logprobs in ((2, p), (3, q)):
            chunks[side].append(-logprobs.gather(-1, targets[some, None])[:, 0])
    kl, agrees, before, after = (
        torch.cat(parts).cpu().numpy() if parts else np.zeros(0, np.float32) for parts in chunks
    )
    documents = moved.documents.flatten()[here].cpu().numpy()
    return TokenDivergence(
        kl.astype(np.float64), agrees.astype(np.bool_), before.astype(np.float64), after.astype(np.float64), documents
    )


def summary(parts: Sequence[TokenDivergence]) -> Divergence:
    """Summarize the divergence over all tokens of at least one batch."""
    kl = np.concatenate([part.kl for part in parts])
    p50, p99 = np.quantile(kl, [0.5, 0.99])
    return Divergence(
        kl=float(kl.mean()),
        kl_p50=float(p50),
        kl_p99=float(p99),
        kl_max=float(kl.max()),
        top1_agreement=float(np.concatenate([part.agrees for part in parts]).mean()),
        tokens=len(kl),
        original_nats=float(np.concatenate([part.original_nats for part in parts]).mean()),
        changed_nats=float(np.concatenate([part.changed_nats for part in parts]).mean()),
    )


def divergence(original: Transformer, changed: Transformer, batches: Sequence[Batch]) -> Divergence:
    """Compare two models at the targets of some batches."""
    return summary([token_divergence(original, changed, batch) for batch in batches])
