"""Tables of several models' results, and what their paired differences show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from herdlm.evaluate.contamination import contamination_row
from herdlm.evaluate.figures import difference, is_rate, lower_is_better, pairs_with
from herdlm.evaluate.intervals import Estimate
from herdlm.evaluate.robustness import robustness, spread_rows
from herdlm.evaluate.run import TaskResult

RATES = 1.0001  # metrics that never exceed this are shown in percent
MANY_GROUPS = 40  # a task with more has its groups in results.json and on the page only


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference ``after - before`` of a metric over the same items.

    Attributes:
        shown: "better" or "worse" if the 95% interval excludes 0, else "nothing".
    """

    task: str
    metric: str
    before: str
    after: str
    n: int
    difference: Estimate
    shown: Literal["better", "worse", "nothing"]

    @property
    def sentence(self) -> str:
        """What is shown, in words."""
        d, rate = self.difference, self._is_rate
        value, low, high = (f"{100 * v:+.2f}" if rate else f"{v:+.3g}" for v in (d.value, d.low, d.high))
        figures = f"{value}{' points' if rate else ''} [{low}, {high}] on {self.n:,} items"
        says = {
            "better": f"{self.after} is better than {self.before}",
            "worse": f"{self.after} is worse than {self.before}: a regression",
            "nothing": f"no difference of {self.after} and {self.before} is shown",
        }
        return f"{self.task} {self.metric}: {says[self.shown]}, {figures}"

    @property
    def _is_rate(self) -> bool:
        return abs(self.difference.value) <= 1 and is_rate(self.metric)


def compare(before: Sequence[TaskResult], after: Sequence[TaskResult], names: tuple[str, str]) -> list[Comparison]:
    """The paired differences of two models on the tasks that both have."""
    found = []
    earlier = {result.task: result for result in before}
    for result in after:
        base = earlier.get(result.task)
        for metric in result.figures if base else ():
            assert base is not None
            change = difference(base.records, result.records, metric)
            if change is None:
                continue
            sign = -1 if lower_is_better(metric) else 1
            low, high = sorted((sign * change.low, sign * change.high))
            shown: Literal["better", "worse", "nothing"] = "better" if low > 0 else "worse" if high < 0 else "nothing"
            n = len(pairs_with(base.records, result.records, metric, "values", "ratios"))
            found.append(Comparison(result.task, metric, *names, n, change, shown))
    return found


def table(results: Mapping[str, Sequence[TaskResult]]) -> list[str]:
    """The lines of a table with a row for each metric of a task and a column for each model."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for model, each in results.items():
        for result in each:
            task = f"{result.task} ({result.n:,})"
            for metric, found in result.figures.items():
                cells.setdefault((task, metric), {})[model] = _shown(found, metric)
            if not result.figures:  # such as answers that a judge did not rate
                cells.setdefault((task, "none"), {})[model] = "no item has a figure"
    head = ("task (items)", "metric", *results)
    rows = [(task, metric, *(row.get(model, "") for model in results)) for (task, metric), row in cells.items()]
    return aligned([head, *rows])


def group_table(results: Mapping[str, Sequence[TaskResult]]) -> list[str]:
    """The lines of a table with a row for each metric of a group, for tasks with groups that are not too many."""
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for model, each in results.items():
        for result in each:
            for group, figures in result.groups.items() if len(result.groups) <= MANY_GROUPS else ():
                for metric, found in figures.items():
                    cells.setdefault((result.task, group, metric), {})[model] = _shown(found, metric)
    rows = [(*key, *(row.get(model, "") for model in results)) for key, row in cells.items()]
    return aligned([("task", "group", "metric", *results), *rows]) if rows else []


def robustness_table(results: Mapping[str, Sequence[TaskResult]]) -> list[str]:
    """The lines of a table of all variants' figures and their spread; none if no variant was asked."""
    rows = [
        (model, result.task, *row)
        for model, each in results.items()
        for result in each
        for row in spread_rows(robustness(result, result.variants))
    ]
    return aligned([("model", "task", "varied", "variant", "metric", "figure", "change"), *rows]) if rows else []


def contamination_table(results: Mapping[str, Sequence[TaskResult]]) -> list[str]:
    """The lines of a table of figures on clean and dirty items; none if no training data was searched."""
    rows = [
        (model, result.task, *contamination_row(result.contamination))
        for model, each in results.items()
        for result in each
        if result.contamination and result.contamination.metrics
    ]
    head = ("model", "task", "metric", "threshold", "dirty items", "all", "clean", "dirty", "gain", "chance")
    return aligned([head, *rows]) if rows else []


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _shown(found: Estimate, metric: str) -> str:
    scale = 100.0 if found.value <= RATES and is_rate(metric) else 1.0
    return f"{found.value * scale:.2f} [{found.low * scale:.2f}, {found.high * scale:.2f}]"
