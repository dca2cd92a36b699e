"""How far a changed model (quantised, say) is from the one it came from, token by token on the same text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Batch
from herdlm.train.objectives import hidden_states


@dataclass(frozen=True, slots=True)
class Divergence:
    """Mean KL(original || changed) in nats per token, share of tokens with the same most likely next token, tokens."""

    kl: float
    top1_agreement: float
    tokens: int


@torch.no_grad()
def divergence(original: Transformer, changed: Transformer, batches: Sequence[Batch]) -> Divergence:
    """Compare next-token distributions wherever a batch has a target."""
    kl, same, count = 0.0, 0, 0
    device = next(original.parameters()).device
    for given in batches:
        batch = given.to(device)
        here = batch.weights.flatten() > 0
        p, q = (F.log_softmax(m.logits(hidden_states(m, batch)[here]).float(), -1) for m in (original, changed))
        kl += float((p.exp() * (p - q)).sum())
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
        count += int(here.sum())
    return Divergence(kl / count, same / count, count)
