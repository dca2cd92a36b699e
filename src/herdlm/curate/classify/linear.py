"""A linear classifier over hashed features: as fast as fastText, without its file format.

The probability of class c for a text with features f, each occurring n_f times and N in all, is
``softmax_c(bias_c + sum_f weight_fc * n_f / sqrt(N))``. Training takes one text at a time, in a new random order for
each epoch, with AdaGrad (Duchi et al. 2011) per feature. It keeps the mean of the weights over all steps (Polyak and
Juditsky 1992), so it needs no learning-rate schedule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from herdlm.base.artifact import FileCheck, write_text_durably
from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_files import read_object
from herdlm.base.recipe import Section
from herdlm.base.seeds import stream
from herdlm.curate.classify.config import ClassifierConfig
from herdlm.curate.classify.features import Hasher

WEIGHTS, SHAPE = "weights.safetensors", "classifier.json"
BATCH_TEXTS = 64  # scored at a time

Floats = NDArray[np.float64]


class Shape(Section):
    """The content of ``classifier.json``."""

    labels: tuple[str, ...]
    config: ClassifierConfig


class LinearClassifier:
    """``labels`` name the C classes, ``table`` is (buckets + 1, C) float32 with a zero last row, ``bias`` is (C,)."""

    def __init__(self, shape: Shape, table: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self.shape, self.table, self.bias = shape, table, bias
        self._hasher = Hasher(shape.config.bits, shape.config.max_words)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of columns."""
        return self.shape.labels

    def logits(self, texts: Sequence[str]) -> Floats:
        """Return logits (N, C). Those of a text do not depend on the other texts."""
        out = np.empty((len(texts), len(self.labels)))
        for at in range(0, len(texts), BATCH_TEXTS):
            ids, starts = self._hasher(texts[at : at + BATCH_TEXTS])
            features = np.add.reduceat(ids < self._hasher.buckets, starts, dtype=np.int64)
            sums = np.add.reduceat(self.table.take(ids, axis=0), starts, axis=0)
            out[at : at + BATCH_TEXTS] = sums / np.sqrt(np.maximum(features, 1))[:, None] + self.bias
        return out

    def probabilities(self, texts: Sequence[str]) -> Floats:
        """Return the probability of each class, (N, C)."""
        return softmax(self.logits(texts))

    def save(self, folder: Path) -> None:
        """Write the classifier's two files to an existing folder. Buckets without a weight take no space."""
        used = np.flatnonzero(self.table.any(axis=1))
        tensors: dict[str, NDArray[Any]] = {"buckets": used, "weights": self.table[used], "bias": self.bias}
        save_file(tensors, folder / WEIGHTS)
        write_text_durably(folder / SHAPE, self.shape.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> LinearClassifier:
        """Load the classifier saved in ``folder``.

        Raises:
            InputError: There is none.
            DamagedError: Its files cannot be read or do not match.
        """
        if not (folder / SHAPE).is_file():
            raise InputError(f"{folder} holds no classifier", "Give a folder that `herdlm grade train` made")
        try:
            shape = Shape.model_validate(read_object(folder / SHAPE, "Train it again"))
            check = FileCheck(folder / WEIGHTS)
            tensors = load_file(folder / WEIGHTS)
            check.wait()
            table = np.zeros((2**shape.config.bits + 1, len(shape.labels)), np.float32)
            table[tensors["buckets"]] = tensors["weights"]
            bias = tensors["bias"]
        except (SafetensorError, ValidationError, OSError, KeyError, ValueError, IndexError) as error:
            raise DamagedError(f"the classifier in {folder} is damaged: {error}", "Train it again") from error
        if (
            table[-1].any()
            or bias.shape != (len(shape.labels),)
            or not (np.isfinite(table).all() and np.isfinite(bias).all())
        ):
            raise DamagedError(f"the classifier in {folder} has weights of the wrong shape", "Train it again")
        return cls(shape, table, bias)


def softmax(logits: Floats) -> Floats:
    """Along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def train(texts: Sequence[str], labels: Sequence[str], config: ClassifierConfig, *, seed: int) -> LinearClassifier:
    """Train a classifier of ``labels``, one per text. The same arguments give the same bytes.

    Raises:
        InputError: There are fewer than two different labels.
    """
    names = sorted(Counter(labels))
    if len(names) < 2:
        raise InputError(
            f"all labels are {names[0]!r}" if names else "there are no labels", "Give labels of at least two kinds"
        )
    hasher = Hasher(config.bits, config.max_words)
    rows = [_counted(hasher, text) for text in texts]
    seen = np.zeros(hasher.buckets + 1, np.int32)
    for buckets, _ in rows:
        seen[buckets] += 1
    kept = seen >= config.min_texts
    rows = [(buckets[keep := kept[buckets]], values[keep]) for buckets, values in rows]
    targets = [names.index(label) for label in labels]
    table = np.zeros((hasher.buckets + 1, len(names)), np.float32)
    drift = np.zeros_like(table)  # the sum of step * change: mean weights = table - drift / steps
    squares = np.full(hasher.buckets + 1, 1e-8, np.float32)
    bias, bias_drift, bias_square = np.zeros(len(names)), np.zeros(len(names)), 1e-8
    draw = stream(seed, "grade", "order")
    step = 0
    for _ in range(config.epochs):
        for i in draw.permutation(len(rows)).tolist():
            buckets, values = rows[i]
            gradient = softmax(values @ table[buckets] + bias)  # of the loss by the logits: probabilities - target
            gradient[targets[i]] -= 1
            square = float(gradient @ gradient)
            squares[buckets] += values**2 * np.float32(square)
            rates = -config.rate * values / np.sqrt(squares[buckets])
            change = np.outer(rates, gradient).astype(np.float32)
            table[buckets] += change
            drift[buckets] += step * change
            bias_square += square
            bias_change = -config.rate * gradient / np.sqrt(bias_square)
            bias += bias_change
            bias_drift += step * bias_change
            step += 1
    table -= drift / np.float32(step)
    return LinearClassifier(
        Shape(labels=tuple(names), config=config), table, (bias - bias_drift / step).astype(np.float32)
    )


def _counted(hasher: Hasher, text: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return a text's buckets, each once, and the value of each."""
    ids, _ = hasher([text])
    buckets, counts = np.unique(ids[ids < hasher.buckets], return_counts=True)
    return buckets, (counts / np.sqrt(max(counts.sum(), 1))).astype(np.float32)
