"""The difference of two models' losses on the same rows, with its confidence interval."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import InputError
from herdlm.evaluate.forward import Model, token_logprobs
from herdlm.evaluate.intervals import Z95, Estimate
from herdlm.evaluate.perplexity import validation_batches
from herdlm.tokens.rows import Source, open_rows


def row_losses(model: Model, folder: Path, *, seq_len: int, pad: int) -> NDArray[np.float64]:
    """Nats per target token of each row of a shard, the same rows in the same order for every model.

    Every process of a sharded model makes this call.

    Raises:
        InputError, DamagedError: the shard is empty or damaged.
    """
    open_rows(Source("held out", folder, 1.0), seq_len, seed=0)  # refuses what cannot be read in rows
    batches = validation_batches(folder, seq_len, pad)
    losses: list[float] = []
    for batch, logprobs in zip(batches, token_logprobs(model, batches), strict=True):
        counts = (batch.weights > 0).sum(1)
        losses += (-logprobs.sum(1)[counts > 0] / counts[counts > 0]).tolist()
    return np.array(losses)


def paired_loss_difference(before: NDArray[np.float64], after: NDArray[np.float64]) -> Estimate:
    """Mean over rows of ``after - before`` with the normal 95% interval of the paired differences.

    The interval is for these two models on other rows of the same kind; it does not cover other training seeds.

    Raises:
        InputError: there are fewer than two rows.
    """
    differences = after - before
    if len(differences) < 2:
        raise InputError(f"{len(differences)} held-out rows give no interval", "Give more held-out text")
    mean = float(differences.mean())
    half = Z95 * float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return Estimate(mean, mean - half, mean + half)
