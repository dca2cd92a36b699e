"""A whole run: the days that its steps take without failures, with them, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from herdlm.base.errors import InputError
from herdlm.plan.money import Figure, Rates, figure, run_cost
from herdlm.plan.reliability.checkpoints import Checkpoints
from herdlm.plan.reliability.failures import Failures
from herdlm.plan.reliability.plan import Operations, forecast

LONGEST_DAYS = 3650.0
SURE = 0.9  # of the simulated runs must end, or the interval has no end


def forecast_run(
    *,
    tokens: float,
    tokens_per_step: int,
    step_seconds: Figure,
    gpus: int,
    gpus_per_host: int,
    failures: Failures,
    checkpoints: Checkpoints,
    operations: Operations,
    rates: Rates,
    seed: int = 0,
) -> Mapping[str, Any]:
    """Days, price and reliability of training on ``tokens``, as JSON.

    Raises:
        InputError: the run takes longer than ten years, or failures let none of its simulations end.
    """
    steps = tokens / tokens_per_step
    work_days = steps * step_seconds.value / 86_400
    if not 0 < work_days <= LONGEST_DAYS:
        raise InputError(
            f"{tokens:g} tokens take {work_days:,.0f} days, which is no plan", "Give more GPUs or fewer tokens"
        )
    found = forecast(
        failures, gpus, checkpoints, operations, gpus_per_host=gpus_per_host, work_days=work_days, seed=seed
    )
    if found["finished"] < SURE:
        raise InputError(
            f"failures come so often that {1 - found['finished']:.0%} of the simulated runs never end",
            "Write checkpoints more often, restart faster, or use fewer GPUs",
        )
    hosts = found["operations"]["spares"]
    cost = run_cost(
        steps=steps,
        step_seconds=step_seconds,
        effective=figure(found["effective"]),
        gpus=gpus,
        spare_gpus=hosts * gpus_per_host,
        rates=rates,
    )
    return {"tokens": tokens, "steps": steps, "work_days": work_days, **cost, "reliability": found}


def with_interval(checkpoints: Checkpoints, seconds: float | None) -> Checkpoints:
    """Checkpoints every ``seconds`` of work; None leaves the best interval to the forecast."""
    return checkpoints if seconds is None else replace(checkpoints, interval=seconds)
