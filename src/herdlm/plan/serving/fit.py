"""Fits the serving constants to published throughput, and measures the error on rows that a fit has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herdlm.plan.serving.rows import Measured
from herdlm.plan.serving.speed import ServingConstants
from herdlm.plan.validate import half_width

FITTED = ("compute", "memory", "token", "step")
# Where few rows say nothing, constants stay near those of ServingConstants, within about these factors (logarithms).
PRIOR = np.array([0.3, 0.15, 1.0, 1.0])
NOISE = 0.05  # of a published throughput
ROUNDS = 25

Vector = NDArray[np.float64]


def fit(rows: Sequence[Measured]) -> ServingConstants:
    """The constants with the least squared error of log throughput and log constants (Gauss-Newton)."""
    start = ServingConstants()
    center = np.log([getattr(start, name) for name in FITTED])

    def residuals(logs: Vector) -> Vector:
        constants = _with(start, logs)
        errors = [error(row, constants) / NOISE for row in rows]
        return np.concatenate([errors, (logs - center) / PRIOR])

    logs = center.copy()
    for _ in range(ROUNDS):
        here = residuals(logs)
        slopes = np.array([(residuals(logs + 1e-4 * unit) - here) / 1e-4 for unit in np.eye(len(FITTED))]).T
        logs = logs - np.clip(np.linalg.lstsq(slopes, here, rcond=None)[0], -0.5, 0.5)
    return _with(start, logs)


def error(row: Measured, constants: ServingConstants) -> float:
    """Log of predicted over measured throughput."""
    assert row.tokens_per_s
    predicted = replace(row, engine=replace(row.engine, constants=constants)).predicted()
    return math.log(predicted / row.tokens_per_s)


def unseen(rows: Sequence[Measured], group: Callable[[Measured], str]) -> dict[str, float]:
    """Error of each row under a fit on the rows of other groups."""
    errors: dict[str, float] = {}
    for name in dict.fromkeys(map(group, rows)):
        constants = fit([row for row in rows if group(row) != name])
        errors |= {row.id: error(row, constants) for row in rows if group(row) == name}
    return errors


def calibrate(rows: Sequence[Measured]) -> ServingConstants:
    """The constants with intervals: from leaving out a row, and from leaving out a model."""
    by_row = unseen(rows, lambda row: row.id)
    by_model = unseen(rows, lambda row: str(row.engine.shape.parameters))
    seen, other = half_width(list(by_row.values())), half_width(list(by_model.values()))
    return replace(
        fit(rows),
        interval={"seen": seen, "other": max(seen, other)},
        origin={"rows": [row.id for row in rows], "left_out_row": by_row, "left_out_model": by_model},
    )


def _with(start: ServingConstants, logs: Vector) -> ServingConstants:
    assert {f.name for f in fields(ServingConstants)} >= set(FITTED)
    values: dict[str, Any] = dict(zip(FITTED, map(float, np.exp(logs)), strict=True))
    return replace(start, **values)
