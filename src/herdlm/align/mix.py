"""Mixes fine-tuning data by capability: repeats rows of scarce tasks, and leaves out rows of abundant ones.

The Llama 3 report raises and lowers the share of each source of data (section 4.2). Here a part of the mix names the
``task`` of its rows, or several. The mixed data is as large as the given data, so a mix changes what is learned and not
for how long.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import Field, model_validator

from herdlm.base.errors import InputError
from herdlm.base.recipe import Section
from herdlm.base.seeds import stream

Row = TypeVar("Row", bound=Mapping[str, Any])
NO_TASK = "no task"


class MixPartConfig(Section):
    """A capability: its share of the fine-tuning data, and the tasks that belong to it."""

    share: float = Field(gt=0, le=1, description="of the data, counted as align.mix.by says")
    tasks: tuple[str, ...] = Field((), description="values of the rows' task; by default the name of the part")


class MixConfig(Section):
    """Shares of the fine-tuning data by capability (Llama 3 report, Table 7)."""

    by: Literal["dialogs", "tokens"] = Field(
        "dialogs", description="what the shares count; the report's are of dialogs"
    )
    max_repeats: float = Field(
        4.0, ge=1, description="how often a dialog may be used at most; what a part then lacks, the others make up for"
    )
    parts: dict[str, MixPartConfig] = Field(min_length=1, description="the capabilities by name")

    @model_validator(mode="after")
    def _parts_are_a_whole(self) -> MixConfig:
        total = sum(part.share for part in self.parts.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of parts add up to {total:g}, not to 1: change one")
        named: dict[str, str] = {}
        for name in self.parts:
            for task in self.tasks_of(name):
                if task in named:
                    raise ValueError(f"task {task!r} belongs to {named[task]!r} and to {name!r}: name it once")
                named[task] = name
        return self

    def tasks_of(self, name: str) -> tuple[str, ...]:
        """The tasks of a part."""
        return self.parts[name].tasks or (name,)

    @property
    def part_of(self) -> dict[str, str]:
        """The name of the part that each task belongs to."""
        return {task: name for name in self.parts for task in self.tasks_of(name)}


@dataclass(frozen=True, slots=True)
class Mixed:
    """The numbers of the rows that are used, some several times, and what a manifest records of each part."""

    rows: list[int]
    counts: dict[str, dict[str, Any]]


def check_tasks(config: MixConfig, rows: Iterable[Row]) -> None:
    """Check that the mix says where each row belongs.

    Raises:
        InputError: rows have a task that no part names; gives all such tasks.
    """
    known, unknown = config.part_of, defaultdict[str, int](int)
    for row in rows:
        task = row.get("task") or NO_TASK
        if task not in known:
            unknown[task] += 1
    if unknown:
        found = ", ".join(f"{task} ({count:,} rows)" for task, count in sorted(unknown.items()))
        raise InputError(
            f"align.mix names no part for the tasks {found}",
            "Add them to the tasks of a part in align.mix.parts, or set the task in the rows",
        )


def mix(rows: Sequence[Row], lengths: Sequence[int], config: MixConfig, seed: int) -> Mixed:
    """Choose rows so that each part has its share; the result does not depend on the order of other parts' rows.

    A part of which ``n`` times its rows are wanted has each row floor(n) or floor(n) + 1 times. Where ``max_repeats``
    keeps a part below its share, the others grow in proportion to theirs, as far as they may.

    Args:
        rows: dialogs with a ``task``.
        lengths: their tokens.

    Returns:
        the chosen rows' numbers, in the order of ``rows``.

    Raises:
        InputError: a row has a task that no part names.
    """
    check_tasks(config, rows)
    part_of = config.part_of
    numbers: dict[str, list[int]] = {name: [] for name in config.parts}
    for number, row in enumerate(rows):
        numbers[part_of[row["task"]]].append(number)
    sizes = np.array(lengths if config.by == "tokens" else [1] * len(rows), float)
    given = {name: float(sizes[found].sum()) for name, found in numbers.items()}
    wanted = _wanted(given, {name: part.share for name, part in config.parts.items()}, config.max_repeats)
    uses = np.zeros(len(rows), int)
    for name, found in numbers.items():
        if found:
            uses[found] = _uses(sizes[found], wanted[name], stream(seed, "mix", name))
    used = uses * sizes
    total = float(used.sum()) or 1.0
    counts = {
        name: {
            "rows": len(found),
            "used": int(uses[found].sum()) if found else 0,
            "repeats": round(wanted[name] / given[name], 4) if found else 0.0,
            "share": round(float(used[found].sum()) / total, 6) if found else 0.0,
            "asked": config.parts[name].share,
        }
        for name, found in numbers.items()
    }
    return Mixed(np.repeat(np.arange(len(rows)), uses).tolist(), counts)


def _wanted(given: Mapping[str, float], shares: Mapping[str, float], most: float) -> dict[str, float]:
    """How much of each part is used: its share of all, at most ``most`` times what there is; others fill the total."""
    total, capped = sum(given.values()), dict[str, float]()
    while True:
        free = {name: share for name, share in shares.items() if name not in capped}
        left, weight = total - sum(capped.values()), sum(free.values())
        wanted = capped | {name: left * share / weight for name, share in free.items()}
        over = {name: most * given[name] for name in free if wanted[name] > most * given[name]}
        if not over:
            return wanted
        capped |= over


def _uses(sizes: np.ndarray[Any, Any], wanted: float, random: np.random.Generator) -> np.ndarray[Any, Any]:
    """How often each row is used: every row equally often, and random ones once more, to come nearest to ``wanted``."""
    whole = math.floor(wanted / sizes.sum())
    uses = np.full(len(sizes), whole)
    order = random.permutation(len(sizes))
    sums = np.concatenate([[0.0], np.cumsum(sizes[order])])
    more = int(np.abs(sums - (wanted - whole * sizes.sum())).argmin())
    uses[order[:more]] += 1
    return uses
