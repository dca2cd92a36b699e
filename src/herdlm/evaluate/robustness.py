"""Variants of a task, which ask the same items in other ways, and how far its figures spread over them.

A task file's ``variants.AXIS.NAME`` holds keys of the same file with other values. The axes of the Llama 3 report
(section 5.1.1) are the choices' labels, the order of answers, the labels of few-shot examples, and the wording.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from herdlm.base.errors import InputError
from herdlm.base.recipe import parse
from herdlm.evaluate.figures import difference, is_rate
from herdlm.evaluate.intervals import Estimate, finite
from herdlm.evaluate.task import Task, TaskFile

SAME = ("items.files", "items.join", "items.where", "items.make", "kind", "metrics")  # what items and figures there are
ALL = "all"  # stands for all axes together


@dataclass(frozen=True, slots=True)
class Variant:
    """A task with some keys changed.

    Attributes:
        axis: what the task's variants of this kind vary.
        name: which of them it is.
    """

    axis: str
    name: str
    task: Task


class Measured(Protocol):
    """A result: figures by metric, and the items' records."""

    @property
    def figures(self) -> Mapping[str, Estimate]: ...

    @property
    def records(self) -> Sequence[Mapping[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Spread:
    """A metric over a task and its variants.

    Attributes:
        baseline: the task's own figure.
        changes: by variant, its difference from the baseline over the same items, with the paired interval.
        deviation: standard deviation of the figures, the baseline among them.
    """

    baseline: Estimate
    figures: dict[str, Estimate]
    changes: dict[str, Estimate]
    low: float
    high: float
    deviation: float

    def to_json(self) -> dict[str, Any]:
        """The figures as ``--json`` prints them."""
        variants = {
            name: found.to_json() | ({"change": self.changes[name].to_json()} if name in self.changes else {})
            for name, found in self.figures.items()
        }
        sums = {"min": finite(self.low), "max": finite(self.high), "std": finite(self.deviation)}
        return {"baseline": self.baseline.to_json(), "variants": variants, **sums}


def variants_of(task: Task) -> list[Variant]:
    """A task's variants, in the order of its file.

    Raises:
        InputError: one has an unknown or a wrong key, or changes which items are asked.
    """
    whole = task.config.model_dump(exclude_unset=True, exclude={"variants"})
    found = []
    for axis, variants in task.config.variants.items():
        for name, changes in variants.items():
            where = f"task {task.name}, variants.{axis}.{name}"
            if axis == ALL or not all(re.fullmatch(r"[\w-]+", part) for part in (axis, name)):
                raise InputError(f"{where}: names are of letters, digits, _ and -, and no axis is {ALL!r}", "Rename it")
            config = parse(TaskFile, _merged(whole, changes), where)
            other = [key for key in SAME if _value(config, key) != _value(task.config, key)]
            if other or config.variants:
                key = other[0] if other else "variants"
                raise InputError(f"{where} changes {key}, so that it is another task", "Make it a task of its own")
            found.append(Variant(axis, name, Task(f"{task.name}.{axis}.{name}", config)))
    return found


def robustness(baseline: Measured, axes: Mapping[str, Mapping[str, Measured]]) -> dict[str, dict[str, Spread]]:
    """The spread over each axis of a task's variants and, where there are several, over all: axis -> metric."""
    found = {axis: _spreads(baseline, variants) for axis, variants in axes.items()}
    if len(axes) > 1:
        every = {f"{axis}.{name}": each for axis, variants in axes.items() for name, each in variants.items()}
        found[ALL] = _spreads(baseline, every)
    return found


def _spreads(baseline: Measured, variants: Mapping[str, Measured]) -> dict[str, Spread]:
    found = {}
    for metric, estimate in baseline.figures.items():
        figures = {name: result.figures[metric] for name, result in variants.items() if metric in result.figures}
        changes = {
            name: change
            for name in figures
            if (change := difference(baseline.records, variants[name].records, metric)) is not None
        }
        values = [estimate.value, *(each.value for each in figures.values())]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        found[metric] = Spread(estimate, figures, changes, min(values), max(values), deviation)
    return found


def spread_rows(axes: Mapping[str, Mapping[str, Spread]]) -> list[tuple[str, str, str, str, str]]:
    """Rows of a table, of the first metric: axis, variant, metric, figure, change. An axis ends with its spread."""
    rows = []
    for axis, by_metric in axes.items():
        metric, spread = next(iter(by_metric.items()))
        scale = 100.0 if spread.high <= 1 and is_rate(metric) else 1.0
        if axis != ALL:
            for name, figure in spread.figures.items():
                change = _shown(spread.changes[name], scale, "+") if name in spread.changes else ""
                rows.append((axis, name, metric, _shown(figure, scale), change))
        summary = f"{spread.low * scale:.2f} to {spread.high * scale:.2f}, std {spread.deviation * scale:.2f}"
        rows.append((axis, "spread", metric, summary, ""))
    return rows


def _shown(found: Estimate, scale: float, sign: str = "") -> str:
    value, low, high = (format(each * scale, f"{sign}.2f") for each in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def _merged(whole: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged; other values are replaced."""
    merged = dict(whole)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _value(config: TaskFile, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
