"""What failures do to a run: interruptions, effective training time, days, spare hosts, and the checkpoint interval."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import InputError
from herdlm.plan.reliability.checkpoints import Checkpoints, best_interval, daly, young
from herdlm.plan.reliability.failures import Failures
from herdlm.plan.reliability.simulate import Drawn, Runs, simulate

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
LOW, HIGH = 10, 90  # percentiles: an 80% interval
MOST_EVENTS, FEWEST = 400_000, 100  # expected failures in all simulated runs, and the fewest runs
SURE = 0.99  # that a spare host is there, where their number is left open

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Operations:
    """How failures are handled. A range is a low and a high mean; each simulated run has one in between.

    ``detect`` is bounded by MegaScale (NSDI 2024, section 6.3): found and diagnosed in less than 10 minutes on average.
    ``restart`` by the same: the progress before the crash is reached again within 15 minutes. ``repair`` and ``manual``
    are assumptions.

    Attributes:
        detect: minutes until a failure is found and its host is known.
        restart: minutes to start again, without reading the checkpoint.
        repair: hours until a host that left is back as a spare one.
        manual: further hours of a failure that needs work by hand.
        spares: hosts that wait; None for as many as are there with a probability of 99%.
    """

    detect: Range = (1.0, 10.0)
    restart: Range = (1.0, 15.0)
    repair: Range = (12.0, 72.0)
    manual: Range = (1.0, 8.0)
    spares: int | None = None

    def __post_init__(self) -> None:
        for name in ("detect", "restart", "repair", "manual"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise InputError(f"{name} from {low:g} to {high:g} is no range", "Give a low and a high, from 0 up")
        if self.spares is not None and self.spares < 0:
            raise InputError(f"{self.spares} spares are impossible", "Give 0 or more")


def forecast(
    failures: Failures,
    gpus: int,
    checkpoints: Checkpoints,
    operations: Operations | None = None,
    *,
    gpus_per_host: int = 8,
    work_days: float | None = None,
    elapsed_days: float | None = None,
    runs: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Simulate a job until its work is done, or for some days, and describe the outcome as JSON.

    Args:
        checkpoints: with an interval of infinity, the best one is taken.
        work_days: days that the job would take without any stop.
        runs: simulated runs; by default 400, fewer if each has many failures.

    Raises:
        InputError: neither or both of the two are given, or a number is impossible.
    """
    operations = operations or Operations()
    if (work_days is None) == (elapsed_days is None):
        raise InputError("a run ends when its work is done, or after some days", "Give one of the two")
    if not (work_days or elapsed_days or 0) > 0 or gpus < 1 or gpus_per_host < 1 or (runs or 1) < 1:
        raise InputError("days, GPUs and simulated runs must be above 0", "Give positive numbers")
    between = HOUR / max(float(failures.rates(gpus, gpus_per_host).sum()), 1e-300)
    best = best_interval(checkpoints.stall, between, checkpoints.write - checkpoints.stall)
    if not np.isfinite(checkpoints.interval):
        checkpoints = replace(checkpoints, interval=best)
    if runs is None:
        expected = (work_days or elapsed_days or 0) * DAY / between
        runs = int(np.clip(MOST_EVENTS / expected, FEWEST, 400))
    rng = np.random.default_rng(seed)
    drawn = draw(failures, (gpus, gpus_per_host), operations, runs, rng)
    needed = enough_spares(drawn, rng)
    spares = needed if operations.spares is None else operations.spares
    found = simulate(
        drawn,
        checkpoints,
        spares,
        rng,
        work=work_days * DAY if work_days else np.inf,
        elapsed=elapsed_days * DAY if elapsed_days else np.inf,
    )
    return {
        "gpus": gpus,
        "runs": runs,
        "seed": seed,
        "failures": {"source": failures.source, "mean_hours_between": between / HOUR, "spread": failures.spread},
        "operations": {**asdict(operations), "spares": spares, "spares_needed": needed},
        "checkpoints": {
            **asdict(checkpoints),
            "best_interval": best,
            "young": young(checkpoints.stall, between),
            "daly": daly(checkpoints.stall, between),
        },
        **outcome(found, failures),
    }


def draw(
    failures: Failures, gpus: tuple[int, int], operations: Operations, runs: int, rng: np.random.Generator
) -> Drawn:
    """Draw what is uncertain: the rates on ``gpus`` (all, of a host), and the mean times of each run."""
    return Drawn(
        failures=failures.draw_rates(*gpus, runs, rng) / HOUR,
        planned=np.full(runs, failures.planned_per_hour() / HOUR),
        out=np.array([part.out for part in failures.component]),
        detect=rng.uniform(*operations.detect, runs) * MINUTE,
        restart=rng.uniform(*operations.restart, runs) * MINUTE,
        repair=rng.uniform(*operations.repair, runs) * HOUR,
        manual=rng.uniform(*operations.manual, runs) * HOUR,
        manual_share=failures.manual_share(),
    )


def enough_spares(drawn: Drawn, rng: np.random.Generator) -> int:
    """Hosts in repair at a moment, in 99 of 100 cases at most (Palm: Poisson, however repair times are distributed)."""
    leaving = (drawn.failures * drawn.out).sum(axis=1)
    in_repair = rng.poisson(np.tile(leaving * drawn.repair, 50))
    return int(np.quantile(in_repair, SURE))


def outcome(found: Runs, failures: Failures) -> dict[str, Any]:
    """The distribution over the runs."""
    return {
        "finished": float(found.finished.mean()),
        "elapsed_days": interval(found.elapsed / DAY),
        "work_days": interval(found.work / DAY),
        "effective": interval(found.effective),
        "interruptions": interval(found.interruptions),
        "planned": interval(found.planned),
        "lost_hours": {name: interval(value / HOUR) for name, value in found.lost.items()},
        "by_component": {
            part.name: interval(found.by_component[:, place]) for place, part in enumerate(failures.component)
        },
    }


def interval(values: NDArray[np.float64]) -> dict[str, float]:
    """Median and 80% interval."""
    low, middle, high = np.percentile(values, (LOW, 50, HIGH))
    return {"value": float(middle), "low": float(low), "high": float(high)}
