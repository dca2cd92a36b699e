"""DPO's reference: log-probabilities under the starting model, computed once and kept as columns of the data."""

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
    """The pairs with ``reference_chosen`` and ``reference_rejected`` under ``model``.

    ``batches`` must be of the same pairs, with the same masking, and ``precision`` that of the training that will use
    them: at its first step policy and reference are then equal.
    """
    device = next(model.parameters()).device
    if precision == "fp8":
        use_fp8(model)
    done: list[Any] = []
    for first in range(0, len(pairs), PAIRS_AT_ONCE):
        numbers = range(first, min(first + PAIRS_AT_ONCE, len(pairs)))
        batch = batches.batch(numbers).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision != "float32"):
            sums, _ = answer_logprobs(model, batch)
        chosen, rejected = (sums[batch.columns[side]].tolist() for side in ("chosen", "rejected"))
        for number, c, r in zip(numbers, chosen, rejected, strict=True):
            done.append({**pairs[number], "reference_chosen": c, "reference_rejected": r})
    return done
