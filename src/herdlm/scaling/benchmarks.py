"""Forecasts benchmarks in two steps, as the Llama 3 report (section 3.2.1).

First the negative log-likelihood of the right answer against ln(FLOPs), a line. Then accuracy against that likelihood,
a sigmoid between a floor (chance) and a ceiling. The models with most compute are held out to show the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.scaling.intervals import figure, rounded
from herdlm.scaling.points import FLOPS_PER_PARAMETER_TOKEN, Floats, Row, read_rows
from herdlm.scaling.sigmoid import Sigmoid, fit_sigmoid

FEWEST = 4  # models of a task
HELD_OUT = 0.25


@dataclass(frozen=True, slots=True)
class Task:
    """What models did on one task; arrays [models]. Entries of ``flops`` may be NaN: they serve the sigmoid alone."""

    name: str
    flops: Floats
    nll: Floats
    accuracy: Floats
    chance: float | None

    def some(self, keep: np.ndarray) -> Task:
        """The models where ``keep`` is true."""
        return Task(self.name, self.flops[keep], self.nll[keep], self.accuracy[keep], self.chance)


@dataclass(frozen=True, slots=True)
class TwoSteps:
    """Both fits of a task. ``line`` is (level, slope) of nll against ln(FLOPs) - ``middle``."""

    middle: float
    line: Floats
    line_draws: Floats
    scatter: Floats
    sigmoid: Sigmoid
    sigmoid_draws: Sigmoid
    bend: float
    noise: float

    def nll(self, flops: float) -> tuple[float, Floats]:
        """The likelihood at ``flops``, and draws of what a model would measure."""
        at = np.array([1.0, np.log(flops) - self.middle])
        return max(float(self.line @ at), 0.0), np.maximum(self.line_draws @ at + self.scatter, 0.0)

    def accuracy(self, flops: float, seed: int) -> tuple[float, Floats]:
        """The accuracy at ``flops``, and draws of what a model would score."""
        value, draws = self.nll(flops)
        noise = self.noise * stream(seed, "accuracy noise").normal(size=len(draws))
        return float(self.sigmoid(value)[0]), np.clip(self.sigmoid_draws(draws) + noise, 0, 1)


def read_tasks(path: Path, where: Sequence[str] = ()) -> list[Task]:
    """Read the tasks of a CSV file with the columns task, nll, accuracy, and flops or params and tokens.

    Raises:
        InputError: a row is bad, or a task has too few models.
    """
    rows, _ = read_rows(path, where)
    return tasks_of(rows, str(path))


def tasks_of(rows: Sequence[Row], source: str) -> list[Task]:
    """The tasks among ``rows``; rows without nll and accuracy belong to none."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        if {"nll", "accuracy"} <= row.numbers.keys():
            grouped.setdefault(row.task or "benchmark", []).append(row)
    return [_task(name, part, source) for name, part in grouped.items()]


def _task(name: str, rows: Sequence[Row], source: str) -> Task:
    shares = np.array([row.numbers["accuracy"] for row in rows])
    scale = 100.0 if shares.max() > 1 else 1.0
    if shares.min() < 0 or shares.max() > 100:
        raise InputError(f"{source}: {name} has accuracies outside of 0 to 1 (or 0 to 100)", "Give shares or percent")
    flops = np.array([_flops(row) for row in rows])
    known = np.unique(flops[np.isfinite(flops)])
    if len(known) < FEWEST:
        raise InputError(
            f"{source}: {name} has {len(known)} models of different compute", f"Give at least {FEWEST} with flops"
        )
    chances = {row.numbers["chance"] / scale for row in rows if "chance" in row.numbers}
    chance = min(chances) if chances else None
    return Task(name, flops, np.array([row.numbers["nll"] for row in rows]), shares / scale, chance)


def _flops(row: Row) -> float:
    numbers = row.numbers
    for role in ("flops", "budget"):
        if role in numbers:
            return numbers[role]
    if {"params", "tokens"} <= numbers.keys():
        return FLOPS_PER_PARAMETER_TOKEN * numbers["params"] * numbers["tokens"]
    return float("nan")


def fit_task(task: Task, *, draws: int, seed: int) -> TwoSteps:
    """Fit the line and the sigmoid of a task."""
    known = np.isfinite(task.flops)
    x, y = np.log(task.flops[known]), task.nll[known]
    middle = float(x.mean())
    design = np.stack([np.ones_like(x), x - middle], 1)
    line, *_ = np.linalg.lstsq(design, y, rcond=None)
    residuals = y - design @ line
    freedom = max(len(y) - 2, 1)
    spread = float(np.sqrt(residuals @ residuals / freedom))
    rng = stream(seed, f"two steps {task.name}")
    widen = spread * np.sqrt(freedom / rng.chisquare(freedom, (draws, 1)))
    root = np.linalg.cholesky(np.linalg.inv(design.T @ design))
    line_draws = line + widen * (rng.normal(size=(draws, 2)) @ root.T)
    scatter = widen[:, 0] * rng.normal(size=draws)
    sigmoid, sigmoid_draws, noise = fit_sigmoid(task.nll, task.accuracy, chance=task.chance, draws=draws, rng=rng)
    bend = _bend(x - middle, y)
    return TwoSteps(middle, line, line_draws, scatter, sigmoid, sigmoid_draws, bend, noise)


def _bend(x: Floats, y: Floats) -> float:
    """The t-statistic of a squared term in the first step; 0 where there are too few models."""
    if len(np.unique(x)) < 5:
        return 0.0
    design = np.stack([np.ones_like(x), x, x * x], 1)
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    residuals = y - design @ solution
    variance = float(residuals @ residuals) / (len(y) - 3) * np.linalg.inv(design.T @ design)[2, 2]
    return float(solution[2] / np.sqrt(variance)) if variance > 0 else 0.0


def forecast_task(task: Task, flops: float, *, draws: int, level: float, seed: int) -> dict[str, Any]:
    """The task's likelihood and accuracy at ``flops``, with the error on the models with most compute held out."""
    fit = fit_task(task, draws=draws, seed=seed)
    checked = _held_out(task, draws=draws, level=level, seed=seed)
    known = task.flops[np.isfinite(task.flops)]
    warnings = []
    if abs(fit.bend) > 3:
        warnings.append(
            f"{task.name}: likelihood bends against ln(FLOPs) (t = {fit.bend:.1f}); the line is too simple."
        )
    if checked is not None and not checked["inside"]:
        warnings.append(f"{task.name}: the held-out models lie outside of the interval: do not trust the forecast.")
    if checked is None:
        warnings.append(f"{task.name}: {len(known)} models leave none to hold out: the forecast is unchecked.")
    gained = float(task.accuracy.max() - task.accuracy.min())
    if gained < 0.05:
        warnings.append(f"{task.name}: accuracies span {100 * gained:.1f} points: the sigmoid is not decided.")
    accuracy, accuracies = fit.accuracy(flops, seed)
    nll, nlls = fit.nll(flops)
    return {
        "task": task.name,
        "models": len(task.nll),
        "decades_ahead": rounded(float(np.log10(flops / known.max()))),
        "nll": figure(nll, nlls, level),
        "accuracy": figure(accuracy, accuracies, level),
        "nll_per_decade": rounded(float(fit.line[1] * np.log(10))),
        "sigmoid": fit.sigmoid.as_json(),
        "held_out": checked,
        "warnings": warnings,
    }


def _held_out(task: Task, *, draws: int, level: float, seed: int) -> dict[str, Any] | None:
    """Errors on the quarter of the models with most compute, forecast from the others."""
    sizes = np.unique(task.flops[np.isfinite(task.flops)])
    count = max(1, round(HELD_OUT * len(sizes)))
    if len(sizes) - count < FEWEST - 1:
        return None
    large = task.flops >= sizes[-count]
    fit = fit_task(task.some(~large), draws=draws, seed=seed)
    rows: list[dict[str, Any]] = []
    for flops, nll, accuracy in zip(task.flops[large], task.nll[large], task.accuracy[large], strict=True):
        said, some = fit.accuracy(float(flops), seed)
        interval = figure(said, some, level)
        likelihood, likelihoods = fit.nll(float(flops))
        rows.append(
            {
                "flops": rounded(float(flops)),
                "nll": figure(likelihood, likelihoods, level) | {"measured": rounded(float(nll))},
                "accuracy": interval | {"measured": rounded(float(accuracy))},
                "inside": bool(interval["low"] <= accuracy <= interval["high"]),
            }
        )
    errors = [row["accuracy"]["value"] - row["accuracy"]["measured"] for row in rows]
    likelihood_errors = [row["nll"]["value"] - row["nll"]["measured"] for row in rows]
    return {
        "models": rows,
        "accuracy_error": rounded(float(np.abs(errors).mean())),
        "nll_error": rounded(float(np.abs(likelihood_errors).mean())),
        "inside": all(row["inside"] for row in rows),
    }
