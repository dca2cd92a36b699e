"""Prepares preference optimization: its objective, and the reference's log-probabilities, computed once as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from herdlm.align.config import DpoConfig
from herdlm.base.errors import InputError
from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Batch
from herdlm.tokens.preferences import Preference, PreferenceBatches
from herdlm.tokens.thumbs import Thumb, ThumbBatches
from herdlm.train.fp8 import use_fp8
from herdlm.train.objectives import Objective
from herdlm.train.preferences import DPO, KTO, answer_logprobs

ITEMS_AT_ONCE = 64


def objective_of(config: DpoConfig) -> Objective:
    """The objective that ``config`` describes, with its loss's own values for keys that are not given."""
    if config.loss == "kto":
        return KTO(config.beta_used, config.desirable_weight, config.undesirable_weight)
    return DPO(config.beta_used, config.nll_weight_used, config.loss, config.gamma_used)


def with_reference(
    model: Transformer, pairs: Sequence[Preference], batches: PreferenceBatches, precision: str = "float32"
) -> list[Preference]:
    """The pairs with ``reference_chosen`` and ``reference_rejected``, sums of log-probabilities under ``model``.

    ``batches`` must have the same pairs and masking as the training, and ``precision`` must be the training's. Then
    policy and reference are equal at its first step. With LoRA, the reference is the model before the adapters.

    Raises:
        InputError: the model's weights are narrower than FP32, in which it is not trained.
    """
    scored: list[Any] = []
    for numbers in _portions(len(pairs)):
        batch = batches.batch(numbers)
        sums = _answer_sums(model, batch, precision)
        chosen, rejected = (sums[batch.columns[side]].tolist() for side in ("chosen", "rejected"))
        for number, c, r in zip(numbers, chosen, rejected, strict=True):
            scored.append({**pairs[number], "reference_chosen": c, "reference_rejected": r})
    return scored


def with_thumb_reference(
    model: Transformer, thumbs: Sequence[Thumb], batches: ThumbBatches, precision: str = "float32"
) -> list[Thumb]:
    """The thumbs with ``reference`` and ``reference_mismatched``; see :func:`with_reference`."""
    scored: list[Any] = []
    for numbers in _portions(len(thumbs)):
        batch = batches.batch(numbers)
        assert batch.probe is not None
        own, mismatched = (
            _answer_sums(model, each, precision)[each.columns["answer"]].tolist() for each in (batch, batch.probe)
        )
        for number, a, m in zip(numbers, own, mismatched, strict=True):
            scored.append({**thumbs[number], "reference": a, "reference_mismatched": m})
    return scored


def _portions(count: int) -> list[range]:
    return [range(first, min(first + ITEMS_AT_ONCE, count)) for first in range(0, count, ITEMS_AT_ONCE)]


@torch.no_grad()
def _answer_sums(model: Transformer, batch: Batch, precision: str) -> Tensor:
    """The log-probability of each document's targets, on the CPU, computed as the training computes it."""
    weight = next(model.parameters())
    if weight.dtype.itemsize < torch.float32.itemsize:
        raise InputError(
            "the reference has weights narrower than FP32, in which no model is trained",
            "Load it with herdlm.model.hf.load_for_training",
        )
    if precision == "fp8":
        use_fp8(model)
    with torch.autocast(weight.device.type, torch.bfloat16, enabled=precision != "float32"):
        sums, _ = answer_logprobs(model, batch.to(weight.device))
    return sums.cpu()
