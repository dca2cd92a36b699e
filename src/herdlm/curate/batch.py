"""Pages as columns, and what a step says about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Batch = dict[str, list[Any]]  # column -> values, of equal lengths


@dataclass(frozen=True, slots=True)
class Outcome:
    """A step's result for a batch: for each page the reason to drop it, or None; and new values of columns."""

    reasons: Sequence[str | None]
    columns: Batch = field(default_factory=dict)


def take(batch: Batch, indices: Sequence[int]) -> Batch:
    """Return the pages at ``indices``."""
    return {name: [values[i] for i in indices] for name, values in batch.items()}
