"""Figures of standard tasks: their section of a run's report, and the cells that the page of an evaluation shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from herdlm.report import format
from herdlm.report.data import Benchmarks, Interval
from herdlm.report.markup import Child, Html, table, tag

BADGES = {
    "better": ("better", "verdict shown"),
    "worse": ("regression", "verdict contrary"),
    "nothing": ("nothing shown", "verdict not-shown"),
}


def benchmarks_section(found: Benchmarks) -> list[Html]:
    """The finished models on standard tasks, beside the run's own."""
    parts = [
        tag(
            "p",
            "Tasks that others use too, with their usual prompts, so that figures can be set beside published ones. "
            "All items, side by side for these models, are on the page index.html of the stage benchmarks.",
        ),
        table(
            "Standard tasks, with 95% intervals",
            ("Task", "Metric", "Items", *found.models),
            (
                (
                    row.task,
                    row.metric,
                    row.items,
                    *("" if each is None else figure_cell(each, row.is_share) for each in row.figures),
                )
                for row in found.rows
            ),
            text_columns=(0, 1),
        ),
    ]
    if found.comparisons:
        parts.append(
            table(
                f"Paired comparisons with {found.models[0]}",
                ("Shown", "What that says"),
                ((shown_badge(shown), f"{sentence}.") for shown, sentence in found.comparisons),
                text_columns=(0, 1),
            )
        )
    return parts


def shown_badge(shown: Literal["better", "worse", "nothing"]) -> Html:
    """What a comparison shows."""
    text, style = BADGES[shown]
    return tag("span", text, class_=style)


def figure_cell(found: Interval, share: bool) -> Child:
    """A figure with its interval, if that is known; a share in percent."""
    scale, unit, digits = (100, "%", 1) if share else (1, "", figure_digits(found.low, found.high))
    text = f"{found.value * scale:.{digits}f}{unit}"
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return text
    between = f"{found.low * scale:.{digits}f} to {found.high * scale:.{digits}f}"
    return [text, " ", tag("small", between, class_="quiet")]


def figure_digits(low: float, high: float) -> int:
    """The decimals that show an interval's width with two digits."""
    width = high - low
    return min(max(1 - math.floor(math.log10(width)), 1), 8) if math.isfinite(width) and width > 0 else 3


def difference_cell(found: Mapping[str, float | None], share: bool) -> Child:
    """A difference with its interval, if that is known; of shares in percentage points."""
    value, low, high = (math.nan if (of := found[key]) is None else of for key in ("value", "low", "high"))
    scale, unit, digits = (100, " points", 1) if share else (1, "", figure_digits(low, high))
    text = f"{format.signed(value * scale, digits)}{unit}"
    if not (math.isfinite(low) and math.isfinite(high)):
        return text
    between = f"{format.signed(low * scale, digits)} to {format.signed(high * scale, digits)}"
    return [text, " ", tag("small", between, class_="quiet")]


def to_interval(found: Mapping[str, Any] | None) -> Interval | None:
    """A figure of results.json; None if it has no value, and a bound that is not known is not a number."""
    if found is None or found["value"] is None:
        return None
    return Interval(found["value"], *(math.nan if found[key] is None else found[key] for key in ("low", "high")))
