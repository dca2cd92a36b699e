"""Pages as columns, and what a step says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Batch = dict[str, list[Any]]  # column -> values, of equal lengths


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step makes of a batch: for each page why it is dropped, or None; and new values of columns."""

    reasons: Sequence[str | None]
    columns: Batch = field(default_factory=dict)

    @property
    def keep(self) -> list[bool]:
        """For each page whether it goes on to the next step."""
        return [reason is None for reason in self.reasons]


def size(batch: Batch) -> int:
    """The number of pages."""
    return len(next(iter(batch.values()), []))


def take(batch: Batch, at: Sequence[int]) -> Batch:
    """The pages at the given places."""
    return {name: [values[i] for i in at] for name, values in batch.items()}
