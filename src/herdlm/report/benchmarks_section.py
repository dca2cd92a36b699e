"""Figures of standard tasks: their section of a run's report, and the cells that the page of an evaluation shares."""

from __future__ import annotations

import math
from typing import Literal

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
