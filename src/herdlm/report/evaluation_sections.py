"""Sections of an evaluation's page that it has on request: how far figures spread, and what contamination explains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from herdlm.report.benchmarks_section import difference_cell, figure_cell, figure_digits, to_interval
from herdlm.report.markup import Child, table, tag

Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""What results.json says of a task and a model, in this order."""
IsShare = Callable[[str, str], bool]
"""Whether a task's metric is shown in percent."""

ALL = "all"  # stands for all axes together


def robustness_section(figures: Figures, is_share: IsShare) -> list[Child]:
    """The spread of each task's figures over its variants, by what they vary; empty if no variant was asked."""
    parts: list[Child] = []
    for task, by_model in figures.items():
        found = {model: each["robustness"] for model, each in by_model.items() if "robustness" in each}
        if found:
            parts += _spread_tables(task, found, partial(is_share, task))
    intro = (
        "The same items asked in other ways: the lowest and the highest figure and their standard deviation, the "
        "task's own figure included. The list of variants says how each differs from that one on the same items."
    )
    return [tag("p", intro), *parts] if parts else []


def _spread_tables(task: str, found: Mapping[str, Any], is_share: Callable[[str], bool]) -> list[Child]:
    """The tables of a task; ``found`` has by model, axis and metric what results.json says."""
    pairs = dict.fromkeys((axis, m) for each in found.values() for axis, metrics in each.items() for m in metrics)
    spreads, variants = [], []
    for axis, metric in pairs:
        share = is_share(metric)
        cells = [each.get(axis, {}).get(metric, {}) for each in found.values()]
        spreads.append((_words(axis), metric, *(_spread(cell, share) for cell in cells)))
        names = dict.fromkeys(name for cell in cells for name in cell.get("variants", ())) if axis != ALL else ()
        variants += [
            (
                f"{_words(axis)}: {name}",
                metric,
                *(_variant(cell.get("variants", {}).get(name), share) for cell in cells),
            )
            for name in names
        ]
    return [
        table(f"Spread of {task}", ("Varied", "Metric", *found), spreads, text_columns=(0, 1)),
        tag(
            "details",
            tag("summary", f"{task}: {len(variants):,} figure{'s' * (len(variants) != 1)} of variants"),
            table(f"Variants of {task}", ("Variant", "Metric", *found), variants, text_columns=(0, 1)),
        ),
    ]


def _words(axis: str) -> str:
    return axis.replace("_", " ")


def _spread(found: Mapping[str, Any], share: bool) -> Child:
    low, high, deviation = (found.get(key) for key in ("min", "max", "std"))
    if low is None or high is None:
        return ""
    scale, unit, digits = (100, "%", 1) if share else (1, "", figure_digits(low, high))
    text = f"{low * scale:.{digits}f} to {high * scale:.{digits}f}{unit}"
    return text if deviation is None else [text, " ", _quiet(f"std {deviation * scale:.{digits}f}")]


def _variant(found: Mapping[str, Any] | None, share: bool) -> Child:
    figure = to_interval(found)
    if found is None or figure is None:
        return ""
    change = tag("div", difference_cell(found["change"], share)) if "change" in found else None
    return [figure_cell(figure, share), change]


def contamination_section(figures: Figures, is_share: IsShare) -> list[Child]:
    """Each task's figures on clean and dirty items; empty if no training data was searched."""
    rows = [
        (
            [tag("span", task), _quiet(metric)],
            model,
            f"{each['contamination']['threshold']:g}",
            _dirty(each["contamination"]),
            *(_figure(gain[key], is_share(task, metric)) for key in ("all", "clean", "dirty")),
            "" if gain["gain"] is None else difference_cell(gain["gain"], is_share(task, metric)),
            "" if gain["chance"] is None else f"{gain['chance']:.3f}",
        )
        for task, by_model in figures.items()
        for model, each in by_model.items()
        if "contamination" in each
        for metric, gain in each["contamination"]["metrics"].items()
    ]
    if not rows:
        return []
    intro = (
        "An item is dirty if at least the threshold's share of its words stands in 8-grams of the training data. The "
        "gain is the figure on all judged items less that on clean ones. Chance is how often shuffled shares show as "
        "clear an advantage of dirty items; below 0.05, the gain is more than the choice of the threshold."
    )
    header = ("Task", "Model", "Threshold", "Dirty items", "All", "Clean", "Dirty", "Gain", "Chance")
    return [tag("p", intro), table("Clean and dirty items", header, rows, text_columns=(0, 1))]


def _dirty(found: Mapping[str, Any]) -> Child:
    judged = f"{found['dirty']:,} of {found['dirty'] + found['clean']:,}"
    return [judged, " ", _quiet(f"{found['unjudged']:,} too short")] if found["unjudged"] else judged


def _figure(found: Mapping[str, Any] | None, share: bool) -> Child:
    figure = to_interval(found)
    return "" if figure is None else figure_cell(figure, share)


def _quiet(text: str) -> Child:
    return tag("small", text, class_="quiet")
