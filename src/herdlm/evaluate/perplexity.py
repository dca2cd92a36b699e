"""Perplexity: how well a model predicts held-out text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from herdlm.evaluate.forward import Model, token_logprobs
from herdlm.tokens.batch import Batch, assemble
from herdlm.tokens.rows import RunningRows, Source
from herdlm.tokens.shards import Shard


@dataclass(frozen=True, slots=True)
class TextLoss:
    """Loss on a shard in nats per token and in bits per UTF-8 byte, and the number of tokens measured."""

    nats_per_token: float
    bits_per_byte: float
    tokens: int


def validation_batches(
    folder: Path, seq_len: int, pad: int, rows_per_batch: int = 32, rows: int | None = None
) -> list[Batch]:
    """All rows of a shard, or ``rows`` of them drawn at random, the same for every model."""
    source = RunningRows(Source("validation", folder, 1.0), Shard(folder), seq_len, seed=0)
    count = source.rows_per_epoch if rows is None else min(rows, source.rows_per_epoch)
    pieces = [source.row(number) for number in range(count)]
    return [assemble(pieces[i : i + rows_per_batch], seq_len, pad) for i in range(0, len(pieces), rows_per_batch)]


def text_loss(model: Model, folder: Path, *, seq_len: int, pad: int) -> TextLoss:
    """Measure a model on a shard of text. Bits per byte compare models with different tokenizers.

    Every process of a sharded model makes this call.
    """
    batches = validation_batches(folder, seq_len, pad)
    shard = Shard(folder).index
    total, tokens = 0.0, 0
    for batch, logprobs in zip(batches, token_logprobs(model, batches), strict=True):
        total -= float(logprobs.sum())
        tokens += int((batch.weights > 0).sum())
    bytes_measured = shard.text_bytes * tokens / shard.target_tokens
    return TextLoss(total / tokens, total / math.log(2) / bytes_measured, tokens)
