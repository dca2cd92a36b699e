"""Fits the constants of the time model on published measurements, and judges the fit on publications left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from herdlm.base.errors import InputError
from herdlm.plan.constants import Constants
from herdlm.plan.hardware import Catalog, Machine
from herdlm.plan.published import Published, Row, published
from herdlm.plan.step_time import step_time

HUBER = 1.5  # standard deviations beyond which a row counts linearly
NOISE = 0.05  # what software alone moves a published run by, as a standard deviation of its log
# Constants that training rows decide, with what is assumed before them: a median, a standard deviation of its logarithm
# (of its odds for shares of hidden traffic), and whether it is a share.
PRIORS: dict[str, tuple[float, float, bool]] = {
    "gemm_bf16": (0.85, 0.15, False),
    "gemm_fp8": (0.80, 0.20, False),
    "gemm_ramp": (100.0, 0.5, False),
    "fused": (1.0, 0.3, False),
    "eager": (2.0, 0.3, False),
    "tp_hidden": (0.6, 0.7, True),
    "cp_hidden": (0.6, 0.7, True),
    "pp_hidden": (0.7, 0.7, True),
    "dp_hidden": (0.85, 0.7, True),
    "fsdp_hidden": (0.7, 1.0, True),
    "spread": (0.002, 0.7, False),
}
STACK = 0.07  # standard deviation of the log of a stack's factor
ENOUGH = 2  # rows that a stack needs for a factor of its own


def predict_row(row: Published, catalog: Catalog, constants: Constants) -> float:
    """Tokens per second and GPU of the fastest job that a row may mean."""
    return _rate(row, row.machine(catalog), constants)


def _rate(row: Published, machine: Machine, constants: Constants) -> float:
    return max(
        job.tokens_per_step / job.gpus / step_time(job, machine, constants, row.stack).seconds for job in row.jobs
    )


def training_rows(rows: Iterable[Row | InputError]) -> list[Published]:
    """The training rows that measured something."""
    made = [published(row) for row in rows if not isinstance(row, InputError) and row.get("kind") == "training"]
    return [row for row in made if row.measured]


def fit_constants(rows: Sequence[Published], catalog: Catalog, start: Constants) -> Constants:
    """The constants that the rows, and what is assumed before them, make likeliest.

    Damped Gauss-Newton on log tokens per second, with Huber weights, so that no row alone decides, and each publication
    counting as the square root of its number of rows.
    """
    of_stack = Counter(row.stack.name for row in rows)
    names, stacks = list(PRIORS), sorted(name for name, count in of_stack.items() if count >= ENOUGH)
    center = np.array([_free(PRIORS[name][0], PRIORS[name][2]) for name in names] + [0.0] * len(stacks))
    width = np.array([PRIORS[name][1] for name in names] + [STACK] * len(stacks))
    counts = Counter(row.publication for row in rows)
    weight = np.array([counts[row.publication] ** -0.25 for row in rows]) / NOISE
    machines = [row.machine(catalog) for row in rows]

    def made(values: np.ndarray) -> Constants:
        shares: dict[str, Any] = {n: _bound(float(v), PRIORS[n][2]) for n, v in zip(names, values, strict=False)}
        factors = {n: math.exp(float(v)) for n, v in zip(stacks, values[len(names) :], strict=True)}
        return replace(start, **shares, stacks=factors)

    def residuals(values: np.ndarray) -> np.ndarray:
        constants = made(values)
        pairs = zip(rows, machines, strict=True)
        return np.array([math.log(_rate(row, machine, constants) / (row.measured or 1)) for row, machine in pairs])

    return made(_least_squares(residuals, center, width, weight))


def _least_squares(
    residuals: Callable[[np.ndarray], np.ndarray], center: np.ndarray, width: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    values, damping = center.copy(), 1e-2

    def cost(errors: np.ndarray, at: np.ndarray) -> float:
        scaled = np.abs(errors * weight)
        huber = np.where(scaled < HUBER, scaled**2, 2 * HUBER * scaled - HUBER**2)
        return float(huber.sum() + (((at - center) / width) ** 2).sum())

    errors = residuals(values)
    now = cost(errors, values)
    for _ in range(60):
        step = 1e-3
        slope = np.stack([(residuals(values + step * unit) - errors) / step for unit in np.eye(len(values))], axis=1)
        scaled = np.abs(errors * weight)
        kept = weight**2 * np.minimum(1.0, HUBER / np.maximum(scaled, 1e-9))
        hessian = slope.T @ (kept[:, None] * slope) + np.diag(width**-2)
        gradient = slope.T @ (kept * errors) + (values - center) / width**2
        while damping < 1e6:
            tried = values - np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), gradient)
            found = residuals(tried)
            if (then := cost(found, tried)) < now:
                break
            damping *= 4
        else:
            break
        gained = now - then
        values, errors, now, damping = tried, found, then, max(damping / 4, 1e-6)
        if gained < 1e-6 * now:
            break
    return values


def _free(value: float, share: bool) -> float:
    return math.log(value / (1 - value)) if share else math.log(value)


def _bound(value: float, share: bool) -> float:
    return 1 / (1 + math.exp(-value)) if share else math.exp(value)
