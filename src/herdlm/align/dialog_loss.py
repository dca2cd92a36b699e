"""The loss of a model on the assistant's words in held-out dialogs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from herdlm.align.job import Model
from herdlm.evaluate.forward import token_logprobs
from herdlm.evaluate.intervals import Z95, Estimate
from herdlm.model.losses import sums_by_document
from herdlm.tokens.batch import Batch, Piece, lay_out
from herdlm.tokens.packing import pack_whole


@dataclass(frozen=True, slots=True)
class DialogLosses:
    """By dialog: nats of its targets, and the targets' weight, which is their number where no message has a weight."""

    nats: list[float]
    weights: list[float]


def dialog_losses(
    model: Model, pieces: Sequence[Piece], *, seq_len: int, pad: int, rows_at_once: int, precision: str
) -> DialogLosses:
    """Measure a model on dialogs. Every process of a laid-out model calls this."""
    device = next(iter(model.parameters())).device
    rows = pack_whole([len(piece.tokens) - 1 for piece in pieces], seq_len)
    batches: list[tuple[Batch, list[tuple[int, int]]]] = []
    for first in range(0, len(rows), rows_at_once):
        some = rows[first : first + rows_at_once]
        batch, places = lay_out([[pieces[i] for i in row] for row in some], seq_len, pad)
        found = [
            (i, place.document) for row, at in zip(some, places, strict=True) for i, place in zip(row, at, strict=True)
        ]
        batches.append((batch, found))
    nats, weights = [0.0] * len(pieces), [0.0] * len(pieces)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision != "float32"):
        measured = token_logprobs(model, [batch for batch, _ in batches])
        for (batch, found), logprobs in zip(batches, measured, strict=True):
            weight, documents = batch.weights.double().flatten(), batch.documents.flatten()
            lost = sums_by_document(-logprobs.flatten() * weight, documents, batch.document_count).tolist()
            counted = sums_by_document(weight, documents, batch.document_count).tolist()
            for item, document in found:
                nats[item], weights[item] = lost[document], counted[document]
    return DialogLosses(nats, weights)


def mean_loss(losses: DialogLosses) -> Estimate:
    """Nats per target, with an interval for other dialogs of the same kind."""
    return ratio(losses.nats, losses.weights)


def loss_change(before: DialogLosses, after: DialogLosses) -> Estimate:
    """The change of nats per target on the same dialogs, with the interval of paired differences."""
    return ratio([a - b for b, a in zip(before.nats, after.nats, strict=True)], before.weights)


def perplexity(loss: Estimate) -> Estimate:
    """The perplexity of a loss."""
    return Estimate(*(math.exp(min(value, 700.0)) for value in (loss.value, loss.low, loss.high)))


def ratio(sums: Sequence[float], sizes: Sequence[float]) -> Estimate:
    """The ratio of two sums over two or more items, with its normal 95% interval (linearized; Cochran 1977, ch. 6)."""
    total, count = sum(sizes), len(sums)
    value = sum(sums) / total
    squares = sum((s - value * n) ** 2 for s, n in zip(sums, sizes, strict=True))
    half = Z95 * math.sqrt(squares * count / (count - 1)) / total
    return Estimate(value, value - half, value + half)
