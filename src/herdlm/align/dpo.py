"""Computes DPO's reference log-probabilities once, under the starting model, and stores them with the pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from herdlm.model.transformer import Transformer
from herdlm.tokens.preferences import Preference, PreferenceBatches
from herdlm.train.fp8 import use_fp8
from herdlm.train.preferences import answer_logprobs

PAIRS_AT_ONCE = 64


@torch.no_grad()
def with_reference(
    model: Transformer, pairs: Sequence[Preference], batches: PreferenceBatches, precision: str = "float32"
) -> list[Preference]:
    """The pairs with ``reference_chosen`` and ``reference_rejected``, sums of log-probabilities under ``model``.

    ``batches`` must have the same pairs and masking as the training, and ``precision`` must be the training's. Then
    policy and reference are equal at its first step.
    """
    device = next(model.parameters()).device
    if precision == "fp8":
        use_fp8(model)
    scored: list[Any] = []
    for first in range(0, len(pairs), PAIRS_AT_ONCE):
        numbers = range(first, min(first + PAIRS_AT_ONCE, len(pairs)))
        batch = batches.batch(numbers).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision != "float32"):
            sums, _ = answer_logprobs(model, batch)
        chosen, rejected = (sums[batch.columns[side]].tolist() for side in ("chosen", "rejected"))
        for number, c, r in zip(numbers, chosen, rejected, strict=True):
            scored.append({**pairs[number], "reference_chosen": c, "reference_rejected": r})
    return scored
