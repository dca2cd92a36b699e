"""The pieces of a data set: checks, the hash that a resumed run knows them by, and their order in steps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.tokens.batch import Batch, Piece
from herdlm.tokens.packing import pack_whole

NAMED = 5  # items that an error names


def content_of_pieces(pieces: Sequence[Piece], *plan: object) -> str:
    """A hash of pieces and of the values that say how they become rows."""
    digest = hashlib.blake2b(repr(plan).encode(), digest_size=16)
    for piece in pieces:
        digest.update(np.asarray(piece.tokens, "<i8").tobytes())
        digest.update(np.asarray(piece.weights, "<f4").tobytes())
    return digest.hexdigest()


def check_lengths(pieces: Sequence[Piece], seq_len: int) -> None:
    """Refuse an empty data set, or an item that is longer than a row."""
    if not pieces:
        raise InputError("the data set is empty, so there is nothing to train on", "Check the stage that made it")
    longest = max(len(piece.tokens) - 1 for piece in pieces)
    if longest > seq_len:
        raise InputError(f"a dialog has {longest:,} tokens and a row {seq_len:,}", "Raise seq_len or drop the dialog")


def check_targets(pieces: Sequence[Piece]) -> None:
    """Refuse dialogs in which nothing is learned, by their numbers from 1."""
    empty = [number for number, piece in enumerate(pieces, 1) if not np.any(piece.weights)]
    if empty:
        named = ", ".join(map(str, empty[:NAMED])) + (f" and {len(empty) - NAMED:,} more" if len(empty) > NAMED else "")
        raise InputError(
            f"{len(empty):,} of {len(pieces):,} dialogs have no target, that is no assistant's message with a weight: "
            f"numbers {named}",
            "Drop them from the data",
        )


def shuffled_steps(
    count: int, per_step: int, *, epochs: int, steps: int | None, seed: int, name: str
) -> list[list[int]]:
    """The numbers of the items in each step, in an order shuffled each epoch; ``steps`` replaces ``epochs``."""
    plan: list[list[int]] = []
    epoch = 0
    while epoch < epochs if steps is None else len(plan) < steps:
        order = stream(seed, name, epoch).permutation(count).tolist()
        plan += [order[i : i + per_step] for i in range(0, count, per_step)]
        epoch += 1
    return plan[:steps]


def split_by_rows(
    numbers: Sequence[int], lengths: Callable[[int], list[int]], seq_len: int, rows: int | None
) -> list[Sequence[int]]:
    """Divide items into runs that pack into at most ``rows`` rows each; None: one run. One item may take more rows.

    Args:
        lengths: gives the lengths of an item's documents.
    """
    if rows is None:
        return [numbers]
    runs: list[list[int]] = []
    packed: list[int] = []
    for number in numbers:
        if runs and len(pack_whole([*packed, *lengths(number)], seq_len)) <= rows:
            runs[-1].append(number)
            packed += lengths(number)
        else:
            runs.append([number])
            packed = lengths(number)
    return list(runs)


class StepsOfItems:
    """The steps of batches whose items are pairs or thumbs: which items each step reads, and their micro-batches.

    Attributes:
        plan: for each step, the numbers of its items.
        rows_per_micro_batch: the most rows of a micro-batch; None: those of the step.
    """

    plan: list[list[int]]
    seq_len: int
    rows_per_micro_batch: int | None

    @property
    def steps(self) -> int:
        """Optimizer steps in all epochs."""
        return len(self.plan)

    def micro_batches(self, step: int) -> list[Batch]:
        """The items of one step, in micro-batches."""
        return [self.batch(numbers) for numbers in self.split(self.plan[step])]

    def split(self, items: Sequence[int]) -> list[Sequence[int]]:
        """The numbers of items, by micro-batches."""
        return split_by_rows(items, self.lengths, self.seq_len, self.rows_per_micro_batch)

    def lengths(self, item: int) -> list[int]:
        """Tokens of each answer of an item, with its prompt."""
        raise NotImplementedError

    def batch(self, items: Sequence[int]) -> Batch:
        """A batch of the items with these numbers, in this order."""
        raise NotImplementedError
