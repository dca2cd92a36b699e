"""How well a model predicts text it has not seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Batch, assemble
from herdlm.tokens.rows import RunningRows, Source
from herdlm.tokens.shards import Shard
from herdlm.train.objectives import NextToken


@dataclass(frozen=True, slots=True)
class TextLoss:
    """Loss on a shard: nats per token, bits per UTF-8 byte of text, and tokens measured."""

    nats_per_token: float
    bits_per_byte: float
    tokens: int


def validation_batches(folder: Path, seq_len: int, pad: int, rows_per_batch: int = 32) -> list[Batch]:
    """A shard once through, the same for every model."""
    rows = RunningRows(Source("validation", folder, 1.0), Shard(folder), seq_len, seed=0)
    pieces = [rows.row(number) for number in range(rows.rows_per_epoch)]
    return [assemble(pieces[i : i + rows_per_batch], seq_len, pad) for i in range(0, len(pieces), rows_per_batch)]


@torch.no_grad()
def text_loss(model: Transformer, folder: Path, *, seq_len: int, pad: int) -> TextLoss:
    """Measure a model on a shard of text. Bits per byte compare models with different tokenizers."""
    batches = validation_batches(folder, seq_len, pad)
    shard = Shard(folder).index
    device = next(model.parameters()).device
    objective = NextToken()
    total = sum(float(objective.loss(model, batch.to(device))[0]) for batch in batches)
    tokens = int(sum(objective.normaliser(batch) for batch in batches))
    bytes_measured = shard.text_bytes * tokens / shard.target_tokens
    return TextLoss(total / tokens, total / math.log(2) / bytes_measured, tokens)
