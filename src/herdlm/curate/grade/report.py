"""Formats the reports of graders and domain classifiers as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

HEAD = f"{'':14}{'texts':>7}{'good':>7}{'kept':>7}{'precision':>11}{'recall':>8}{'AUC':>8}{'Brier':>8}"


def grader_lines(report: dict[str, Any]) -> list[str]:
    """Return a grader's report as lines."""
    return list(_grader_lines(report))


def domain_lines(report: dict[str, Any]) -> list[str]:
    """Return a domain classifier's report as lines."""
    return list(_domain_lines(report))


def _grader_lines(report: dict[str, Any]) -> Iterator[str]:
    yield from _label_lines(report["labels"])
    yield ""
    yield f"On held-out labels, keeping scores from {report['kept_from_score']}:"
    yield ""
    yield HEAD
    yield _measures("all", report["held_out"])
    for language, measures in report["by_language"].items():
        why = f" ({measures['why'].replace('_', ' ')})" if measures["why"] else ""
        yield f"{_measures(language or 'unknown', measures)}  calibration: {measures['calibration']}{why}"
    yield _measures("(countable)", report["countable_properties"])
    yield ""
    yield "The last row is the default score, by countable properties, on the same texts."
    yield f"Calibration error: {report['held_out']['calibration_error']}"
    yield ""
    yield f"{'scores':14}{'texts':>7}{'mean':>8}{'good':>8}"
    for row in report["reliability"]:
        bounds = f"{row['from']:.1f} to {row['to']:.1f}"
        yield f"{bounds:14}{row['texts']:7}{row['mean_score']:8.3f}{row['good_share']:8.3f}"


def _domain_lines(report: dict[str, Any]) -> Iterator[str]:
    yield from _label_lines(report["labels"])
    yield ""
    yield f"On {report['held_out']['texts']} held-out labels: accuracy {report['held_out']['accuracy']}"
    yield ""
    yield f"{'':24}{'texts':>7}{'precision':>11}{'recall':>8}"
    for name, row in report["held_out"]["classes"].items():
        yield f"{name:24}{row['texts']:7}{_number(row['precision'], 11)}{_number(row['recall'], 8)}"
    if report["held_out"]["mistakes"]:
        yield ""
        yield "Commonest mistakes:"
        for row in report["held_out"]["mistakes"]:
            yield f"  {row['texts']} of {row['is']} taken for {row['said']}"


def _label_lines(labels: dict[str, Any]) -> Iterator[str]:
    yield (
        f"Labels: {labels['training']} to train on, {labels['calibration']} to calibrate on, "
        f"{labels['held_out']} held out"
    )
    yield f"By label: {_counts(labels['by_label'].items())}"
    yield f"By language: {_counts(labels['by_language'].items())}"
    yield (
        f"Left out: {labels['rows_without_answer']} without an answer, "
        f"{labels['rows_of_unknown_documents']} of unknown documents"
    )


def _counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name or 'unknown'} {count}" for name, count in counts)


def _measures(name: str, row: dict[str, Any]) -> str:
    counts = "".join(f"{row[key]:7}" for key in ("texts", "good", "kept"))
    rates = _number(row["precision"], 11) + "".join(_number(row[key], 8) for key in ("recall", "auc", "brier"))
    return f"{name:14}{counts}{rates}"


def _number(value: float | None, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.3f}"
