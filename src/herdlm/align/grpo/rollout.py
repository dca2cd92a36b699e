"""A batch of sampled answers to train on: their tokens, advantages and log-probabilities, in memory and in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from herdlm.base.artifact import write_durably
from herdlm.base.errors import DamagedError
from herdlm.tokens.batch import Batch, Piece, lay_out
from herdlm.tokens.packing import pack_short
from herdlm.tokens.pieces import split_by_rows

Floats = NDArray[np.float32]
Mean = Literal["tokens", "answers", "constant"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its prompt.

    Attributes:
        tokens: of prompt and answer, with the stop token if one ended it.
        targets: how many of them, at the end, are the answer's.
        part: the minibatch that trains on it.
        engine, old, reference: log-probabilities of the targets, as the engine computed them, under the policy that
            sampled, and under the reference.
    """

    tokens: NDArray[np.int64]
    targets: int
    part: int
    advantage: float
    engine: Floats
    old: Floats | None = None
    reference: Floats | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """The answers of a batch, in order.

    Attributes:
        weights: a hash of the weights that sampled them.
        figures: what to log of them.
    """

    answers: list[Answer]
    weights: str
    figures: dict[str, float]

    def with_logprobs(self, name: Literal["old", "reference"], values: Sequence[Floats]) -> Rollout:
        """The same with a column of log-probabilities."""
        answers = [replace(a, **{name: value}) for a, value in zip(self.answers, values, strict=True)]  # type: ignore[arg-type]
        return replace(self, answers=answers)

    def write(self, path: Path) -> None:
        """Write the file that :func:`read_rollout` reads."""
        columns: dict[str, NDArray[np.generic]] = {
            "tokens": np.concatenate([a.tokens for a in self.answers]).astype(np.int32),
            "lengths": np.array([len(a.tokens) for a in self.answers], np.int64),
            "targets": np.array([a.targets for a in self.answers], np.int64),
            "parts": np.array([a.part for a in self.answers], np.int64),
            "advantages": np.array([a.advantage for a in self.answers], np.float64),
        }
        for name in ("engine", "old", "reference"):
            values = [getattr(a, name) for a in self.answers]
            if values[0] is not None:
                columns[name] = np.concatenate(values)
        said = {"weights": self.weights, "figures": json.dumps(self.figures)}
        write_durably(path, save(columns, metadata=said))


def read_rollout(path: Path) -> Rollout | None:
    """The batch in a file; None if there is no file.

    Raises:
        DamagedError: it cannot be read.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            said = file.metadata()
            columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{path} cannot be read: {error}", "Delete it and the checkpoints after it") from error
    targets = columns["targets"]
    tokens = np.split(columns["tokens"].astype(np.int64), columns["lengths"].cumsum()[:-1])
    places = targets.cumsum()[:-1]
    values = {name: np.split(columns[name], places) for name in ("engine", "old", "reference") if name in columns}
    answers = [
        Answer(
            tokens=tokens[i],
            targets=int(targets[i]),
            part=int(columns["parts"][i]),
            advantage=float(columns["advantages"][i]),
            **{name: each[i] for name, each in values.items()},
        )
        for i in range(len(targets))
    ]
    return Rollout(answers, said["weights"], json.loads(said["figures"]))


@dataclass(frozen=True, slots=True)
class Layout:
    """How answers become batches.

    Attributes:
        rows: the most rows of a micro-batch.
        mean: what the loss is a mean over.
        longest: what "constant" divides an answer's tokens by.
    """

    seq_len: int
    rows: int
    pad: int
    mean: Mean
    longest: int

    def batches(self, answers: Sequence[Answer], *, first: bool) -> tuple[list[Batch], list[list[int]]]:
        """The micro-batches of a step on answers.

        Args:
            first: whether the policy is still the one that sampled.

        Returns:
            The batches, and for each answer the batch and the flattened index of its last target.
        """
        split = split_by_rows(range(len(answers)), lambda i: [len(answers[i].tokens) - 1], self.seq_len, self.rows)
        total = sum(answer.targets for answer in answers)
        per_token = 1.0 if self.mean == "tokens" else len(answers) / total
        batches, ends = [], [[0, 0] for _ in answers]
        for number, run in enumerate(split):
            batch, found = self._batch([answers[i] for i in run], per_token, first)
            batches.append(batch)
            for i, end in zip(run, found, strict=True):
                ends[i] = [number, end]
        return batches, ends

    def _batch(self, answers: Sequence[Answer], per_token: float, first: bool) -> tuple[Batch, list[int]]:
        rows, length = pack_short([len(answer.tokens) - 1 for answer in answers], self.seq_len)
        batch, places = lay_out([[self._piece(answers[i]) for i in row] for row in rows], length, self.pad)
        ends = [0] * len(answers)
        names = ["advantage", "share", "mean"]
        names += [] if answers[0].reference is None else ["reference"]
        names += ["engine"] if first else ["old"]
        columns = {name: np.zeros(batch.tokens.shape, np.float32) for name in names}
        for row, at in zip(rows, places, strict=True):
            for i, place in zip(row, at, strict=True):
                answer, ends[i] = answers[i], place.end
                here = slice(place.end + 1 - answer.targets, place.end + 1)
                for name, column in columns.items():
                    column.reshape(-1)[here] = self._value(name, answer, per_token)
        batch.columns = {name: torch.from_numpy(column) for name, column in columns.items()}
        return batch, ends

    def _piece(self, answer: Answer) -> Piece:
        weights = np.zeros(len(answer.tokens) - 1, np.float32)
        each = {"tokens": 1.0, "answers": 1 / answer.targets, "constant": 1 / self.longest}[self.mean]
        weights[-answer.targets :] = each
        return Piece(answer.tokens, weights)

    def _value(self, name: str, answer: Answer, per_token: float) -> float | Floats:
        if name == "share":
            return 1.0 if self.mean == "tokens" else 1 / answer.targets
        if name == "mean":
            return per_token
        value: float | Floats | None = getattr(answer, name)
        assert value is not None
        return value


def values_of(answers: Sequence[Answer], values: Sequence[torch.Tensor], ends: Sequence[Sequence[int]]) -> list[Floats]:
    """The values of each answer's targets, from those of the places of the batches that it lies in."""
    return [
        values[batch].flatten()[end + 1 - answer.targets : end + 1].numpy().astype(np.float32)
        for answer, (batch, end) in zip(answers, ends, strict=True)
    ]
