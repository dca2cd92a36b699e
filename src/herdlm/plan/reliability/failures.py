"""Failures by component that were counted on a cluster, and the rates that they give a cluster of another size."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from herdlm.base.errors import InputError
from herdlm.base.recipe import Section, parse

HOURS_PER_DAY = 24.0
JEFFREYS = 0.5  # added to a Poisson count, it gives the posterior of its rate under Jeffreys' prior


class Component(Section):
    """A kind of failure: what it is counted over, how often it was seen, and whether its host leaves the job."""

    name: str
    scope: Literal["gpu", "host"]
    count: int = Field(ge=0)
    out: bool


class Failures(Section):
    """The counts of one cluster over some days."""

    source: str
    gpus: int = Field(gt=0)
    gpus_per_host: int = Field(gt=0)
    days: float = Field(gt=0)
    planned: int = Field(0, ge=0)
    manual: int = Field(0, ge=0)
    spread: float = Field(0.0, ge=0, description="standard deviation of the rate's logarithm between clusters")
    component: tuple[Component, ...] = Field(min_length=1)

    @property
    def unexpected(self) -> int:
        """All counts of components."""
        return sum(part.count for part in self.component)

    def rates(self, gpus: int, gpus_per_host: int) -> NDArray[np.float64]:
        """Failures per hour of each component on a cluster of this size, as counted."""
        return self._scale(gpus, gpus_per_host) * np.array([part.count for part in self.component])

    def draw_rates(self, gpus: int, gpus_per_host: int, runs: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Rates [runs, components] per hour that the counts allow.

        A rate is a draw of the Gamma posterior of its count; all rates of a run are then multiplied by one factor, the
        difference between clusters.
        """
        counts = np.array([part.count for part in self.component], dtype=float)
        posterior = rng.gamma(counts + JEFFREYS, size=(runs, len(counts)))
        factor = np.exp(self.spread * rng.standard_normal((runs, 1)))
        return np.asarray(posterior * factor * self._scale(gpus, gpus_per_host))

    def planned_per_hour(self) -> float:
        """Planned stops per hour of a job, whatever its size."""
        return self.planned / (self.days * HOURS_PER_DAY)

    def manual_share(self) -> float:
        """Share of the unexpected interruptions that need much work by hand."""
        return min(self.manual / max(self.unexpected, 1), 1.0)

    def _scale(self, gpus: int, gpus_per_host: int) -> NDArray[np.float64]:
        hours = self.days * HOURS_PER_DAY
        of_gpu = gpus / (self.gpus * hours)
        of_host = (gpus / gpus_per_host) / (self.gpus / self.gpus_per_host * hours)
        return np.array([of_gpu if part.scope == "gpu" else of_host for part in self.component])


def read_failures(path: Path | None = None) -> Failures:
    """The counts in a TOML file; by default those of the Llama 3 report.

    Raises:
        InputError: the file cannot be read, or has an unknown, missing or wrong key.
    """
    if path is None:
        name, text = "failures.toml", (files("herdlm.plan.reliability") / "failures.toml").read_text("utf-8")
    else:
        try:
            name, text = str(path), path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}", "Give a TOML file of failures") from error
    try:
        return parse(Failures, tomllib.loads(text), name)
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"{name} is not TOML: {error}", "Correct it, or start from a copy of the shipped one"
        ) from error
