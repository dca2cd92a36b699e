"""The input of a training step: packed rows of documents with targets and weights, made ahead in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from herdlm.model.attention import to_device

TENSORS = ("tokens", "targets", "weights", "documents", "positions")


@dataclass(slots=True)
class Batch:
    """Packed rows, [B, T] each.

    Attributes:
        targets: ``targets[b, t]`` is the token to predict after ``tokens[b, t]``.
        weights: of the targets in the loss; 0 where there is no target.
        documents: numbers of the documents in the batch, never decreasing in a row; attention stays in a document.
        positions: of tokens in their document.
        columns: what else an objective reads, per place or per pair of documents.
        probe: rows that an objective reads before the step, without learning from them.
        origin: the batch on the host that this one was copied from. Shapes are read there, without a wait.
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    documents: Tensor
    positions: Tensor
    columns: dict[str, Tensor] = field(default_factory=dict)
    probe: Batch | None = None
    origin: Batch | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        tensors = {name: to_device(getattr(self, name), device) for name in TENSORS}
        columns = {name: to_device(value, device) for name, value in self.columns.items()}
        return Batch(**tensors, columns=columns, probe=None, origin=self.origin or self)

    def target_places(self) -> Tensor:
        """The indices [N] of places, in flattened rows, that have a target."""
        places = (self.origin or self).weights.flatten().nonzero().flatten()
        return to_device(places, self.tokens.device)

    @property
    def document_count(self) -> int:
        """The number of documents in the batch, counting padding."""
        return int((self.origin or self).documents.max()) + 1

    @property
    def token_count(self) -> int:
        """The number of tokens in the batch, counting padding."""
        return self.tokens.numel()


class Batches(Protocol):
    """A run's batches, each a function of its step: resuming needs no loader state but the step's number.

    They may have further members, each optional: ``content`` (see :func:`herdlm.train.work.open_record`), ``figures``,
    which gives what to log of a step that is done, and ``shown``, names of what is logged for the line of progress.
    """

    @property
    def steps(self) -> int:
        """Optimizer steps in the run."""
        ...

    def micro_batches(self, step: int) -> list[Batch]:
        """The batches whose gradients add up to step ``step``."""
        ...


class Prefetch:
    """Makes the batches of the next ``ahead`` of ``steps`` steps while a step runs; use as a context manager.

    Steps may be asked for in any order, as a run does that rolls back. ``make`` returns a step's micro-batches.
    """

    def __init__(self, make: Callable[[int], list[Batch]], steps: int, ahead: int) -> None:
        self.make, self.steps, self.ahead = make, steps, ahead
        self._made: dict[int, Future[list[Batch]]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *raised: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def micro_batches(self, step: int) -> tuple[list[Batch], float]:
        """The batches of a step, and the seconds it had to wait for them. Raises what making them raised."""
        started = time.monotonic()
        if not self.ahead:
            return self.make(step), time.monotonic() - started
        wanted = range(step, min(step + 1 + self.ahead, self.steps))
        for number in set(self._made) - set(wanted):
            self._made.pop(number).cancel()
        for number in wanted:
            if number not in self._made:
                self._made[number] = self._thread.submit(self.make, number)
        batches = self._made.pop(step).result()
        return batches, time.monotonic() - started


@dataclass(frozen=True, slots=True)
class Piece:
    """A document, or the part of one that a row holds: n + 1 tokens, of which the last is only a target.

    ``weights[i]`` is the weight of predicting ``tokens[i + 1]``.
    """

    tokens: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a piece in a batch: its document number, and its last token's index in the flattened rows."""

    document: int
    end: int


def assemble(rows: Sequence[Sequence[Piece]], seq_len: int, pad: int) -> Batch:
    """Lay pieces side by side into rows of ``seq_len`` tokens, padded at the end with tokens of weight 0."""
    return lay_out(rows, seq_len, pad)[0]


def lay_out(rows: Sequence[Sequence[Piece]], seq_len: int, pad: int) -> tuple[Batch, list[list[Place]]]:
    """As :func:`assemble`; also returns the place of each piece."""
    shape = (len(rows), seq_len)
    tokens = np.full(shape, pad, np.int64)
    targets = np.full(shape, pad, np.int64)
    weights = np.zeros(shape, np.float32)
    documents = np.zeros(shape, np.int64)
    positions = np.zeros(shape, np.int64)
    places: list[list[Place]] = []
    number = 0
    for r, row in enumerate(rows):
        at = 0
        places.append([])
        for piece in row:
            n = len(piece.tokens) - 1
            tokens[r, at : at + n] = piece.tokens[:-1]
            targets[r, at : at + n] = piece.tokens[1:]
            weights[r, at : at + n] = piece.weights
            documents[r, at : at + n] = number
            positions[r, at : at + n] = np.arange(n)
            at += n
            places[-1].append(Place(number, r * seq_len + at - 1))
            number += 1
        if at < seq_len:  # padding is a document of its own, so that nothing attends to it
            documents[r, at:] = number
            positions[r, at:] = np.arange(seq_len - at)
            number += 1
    batch = Batch(
        tokens=torch.from_numpy(tokens),
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(weights),
        documents=torch.from_numpy(documents),
        positions=torch.from_numpy(positions),
    )
    return batch, places
