"""Labeled turns as dialogs that train a guard: its prompt, and its verdict, of which alone the tokens are learned.

A guard that always sees the same list of categories learns it by heart and not to read it. So categories are
renumbered and dropped at random (Llama Guard, Inan et al., arXiv 2312.06674, section 3.3): those that a turn does not
violate, and sometimes all that it does, by which it becomes safe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from herdlm.align.safety.labels import Labeled
from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.serve.guard.guard import CATEGORIES, PROMPT, SAFE, UNSAFE, guard_message, turns_of

RELABELED = 0.15  # share of dialogs with dropped categories whose violated ones are dropped, too


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How categories are changed.

    Attributes:
        copies: dialogs of each turn, each with its own changes.
        shuffle: share of dialogs whose categories are renumbered.
        drop: share of dialogs in which categories are missing.
    """

    copies: int = 1
    shuffle: float = 0.5
    drop: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("shuffle", self.shuffle), ("drop", self.drop)):
            if not 0 <= value <= 1:
                raise InputError(f"--{name} {value} is not a share", "Give a number from 0 to 1")


def drops_can_be_told(rows: Sequence[Labeled]) -> bool:
    """Whether each unsafe turn has codes.

    If not, nobody knows which categories may be dropped from it, and a list from which some are missing would give
    away that a turn is safe.
    """
    return all(row.codes for row in rows if row.unsafe)


def guard_dialogs(
    rows: Sequence[Labeled], augmentation: Augmentation, *, template: str = PROMPT, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """The dialogs of labeled turns, shuffled.

    Args:
        template: the wording of the guard's prompt.
    """
    drop = augmentation.drop if drops_can_be_told(rows) else 0.0
    order = stream(seed, "order").permutation(len(rows) * augmentation.copies)
    for place in order.tolist():
        number, copy = place % len(rows), place // len(rows)
        row, draw = rows[number], stream(seed, "guard", number, copy)
        dropped = _dropped(row, draw) if draw.random() < drop else frozenset()
        names = _renumbered(draw) if draw.random() < augmentation.shuffle else CATEGORIES
        listed = {code: name for code, name in names.items() if name not in dropped}
        violated = {CATEGORIES[code] for code in row.codes} - dropped
        codes = ",".join(code for code, name in listed.items() if name in violated)
        unsafe = row.unsafe and (bool(codes) or not row.codes)
        question = guard_message(turns_of(row.messages), template, listed)
        verdict = (f"{UNSAFE}\n{codes}" if codes else UNSAFE) if unsafe else SAFE
        yield {
            "messages": [question, {"role": "assistant", "content": verdict}],
            "task": f"guard {row.subject}",
            "source": row.source,
        }


def _dropped(row: Labeled, draw: np.random.Generator) -> frozenset[str]:
    """The names of a random number of categories; one at least is left."""
    violated = [CATEGORIES[code] for code in row.codes]
    others = [name for name in CATEGORIES.values() if name not in violated]
    count = int(draw.integers(1, len(others)))
    chosen = {others[i] for i in draw.permutation(len(others))[:count].tolist()}
    return frozenset(chosen | set(violated) if draw.random() < RELABELED else chosen)


def _renumbered(draw: np.random.Generator) -> dict[str, str]:
    names = list(CATEGORIES.values())
    return dict(zip(CATEGORIES, (names[i] for i in draw.permutation(len(names)).tolist()), strict=True))
