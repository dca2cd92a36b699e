"""Forecasts from files: the loss from a ladder's points, benchmarks from their likelihoods and scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.scaling.benchmarks import forecast_task, tasks_of
from herdlm.scaling.extrapolate import forecast
from herdlm.scaling.fit import DRAWS, LEVEL, Laws, fit_laws
from herdlm.scaling.points import points_of, read_rows


def forecast_file(
    path: Path,
    flops: float,
    *,
    benchmarks: Path | None = None,
    where: Sequence[str] = (),
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[Laws | None, dict[str, Any]]:
    """Forecast a run of ``flops``; returns the laws, and what ``herdlm scaling forecast --json`` prints.

    A file with a column loss gives the optimum and the loss. Tasks come from ``benchmarks``, or from ``path`` if that
    has the columns nll and accuracy.

    Raises:
        InputError: a file has a bad row, or allows neither forecast.
    """
    rows, columns = read_rows(path, where)
    result: dict[str, Any] = {"file": str(path), "level": level, "draws": draws, "seed": seed, "flops": flops}
    laws = None
    if "loss" in columns:
        laws = fit_laws(points_of(rows, columns, str(path)), draws=draws, level=level, seed=seed)
        result["optimum"] = forecast(laws, flops, seed=seed)
    task_file = benchmarks or path
    task_rows = rows if benchmarks is None else read_rows(benchmarks)[0]
    tasks = tasks_of(task_rows, str(task_file))
    if benchmarks is not None and not tasks:
        raise InputError(
            f"{benchmarks} has no rows with nll and accuracy", "Give the columns task, flops, nll, accuracy"
        )
    if laws is None and not tasks:
        raise InputError(f"{path} has neither a column loss nor nll and accuracy", "Name them in its first line")
    result["benchmarks"] = [forecast_task(task, flops, draws=draws, level=level, seed=seed) for task in tasks]
    return laws, result
