"""Forecasts the flagship's loss before it trains, by a power law in model size fitted to a ladder of small models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import InputError


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """y = factor * x ** exponent."""

    factor: float
    exponent: float

    def __call__(self, x: float) -> float:
        """The value at ``x``."""
        return float(self.factor * x**self.exponent)


def fit_power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """Least squares in log-log.

    Raises:
        InputError: fewer than two different x.
    """
    if len(set(x)) < 2:
        raise InputError("a power law needs at least two different sizes", "Give herd.ladder models of different sizes")
    exponent, intercept = np.polyfit(np.log(x), np.log(y), 1)
    return PowerLaw(math.exp(intercept), float(exponent))


def forecast_weights(x: Sequence[float], at: float) -> NDArray[np.float64]:
    """Weights [points] with which :func:`fit_power_law` of (x, y) has the value exp(weights @ ln y) at ``at``.

    They sum to 1. If all x equal ``at``, they average the points.

    Raises:
        InputError: fewer than two different x, unless ``at`` is the only one.
    """
    if set(x) == {at}:
        return np.full(len(x), 1 / len(x))
    if len(set(x)) < 2:
        raise InputError("a power law needs at least two different sizes", "Give models of different sizes")
    logs = np.log(np.asarray(x, float))
    spread = logs - logs.mean()
    weights: NDArray[np.float64] = 1 / len(x) + (math.log(at) - logs.mean()) * spread / (spread @ spread)
    return weights
