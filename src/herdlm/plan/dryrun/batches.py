"""Batches for a dry run: rows of one document each, the costliest that a row can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from herdlm.tokens.batch import Batch


@dataclass(frozen=True, slots=True)
class FullRows:
    """A step's micro-batches; see :class:`herdlm.tokens.batch.Batches`.

    Args:
        rows: of each micro-batch, on all data-parallel ranks together.
        columns: for rows that are the answers of pairs, one after the other: what a loss reads of them. None: none.
    """

    rows: Sequence[int]
    seq_len: int
    columns: tuple[str, ...] = ()
    steps: int = 1

    def micro_batches(self, step: int) -> list[Batch]:
        """The same for every step."""
        return [self._batch(rows) for rows in self.rows]

    def _batch(self, rows: int) -> Batch:
        # Views of few values: a step of the largest recipe has 17 million tokens.
        shape = (rows, self.seq_len)
        zeros = torch.zeros(1, 1, dtype=torch.int64).expand(shape)
        numbers = torch.arange(rows)
        batch = Batch(
            tokens=zeros,
            targets=zeros,
            weights=torch.ones(1, 1).expand(shape),
            documents=numbers[:, None].expand(shape),
            positions=torch.arange(self.seq_len)[None].expand(shape),
        )
        if self.columns:
            batch.columns = self._pairs(numbers)
        return batch

    def _pairs(self, numbers: Tensor) -> dict[str, Tensor]:
        columns = {}
        for place, side in enumerate(("chosen", "rejected")):
            columns[side] = numbers[place::2]
            columns[f"{side}_end"] = (columns[side] + 1) * self.seq_len - 1
            columns[f"reference_{side}"] = torch.zeros(len(columns[side]))
        return {name: columns[name] for name in self.columns}


REWARD_COLUMNS = ("chosen", "rejected", "chosen_end", "rejected_end")
DPO_COLUMNS = (*REWARD_COLUMNS, "reference_chosen", "reference_rejected")
