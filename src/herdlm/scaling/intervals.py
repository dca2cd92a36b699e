"""Figures with intervals, as the results of scaling fits hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from herdlm.scaling.points import Floats

DIGITS = 6


def figure(value: Floats | float, draws: Floats, level: float) -> dict[str, Any]:
    """A value with the interval that holds ``level`` of the draws; bounds that are not finite become None."""
    low, high = interval(draws, level)
    return {"value": rounded(float(np.asarray(value).reshape(-1)[0])), "low": low, "high": high}


def interval(draws: Floats, level: float) -> tuple[float | None, float | None]:
    """The interval that holds ``level`` of the draws, with equal tails."""
    finite = np.where(np.isnan(draws), np.inf, draws)
    low, high = np.quantile(finite, ((1 - level) / 2, (1 + level) / 2), method="nearest")
    return rounded(float(low)), rounded(float(high))


def named(values: Mapping[str, Floats], draws: Mapping[str, Floats], level: float) -> dict[str, Any]:
    """Values by name, with their intervals and standard errors by name beside them."""
    return {
        **{name: rounded(float(value[0])) for name, value in values.items()},
        "interval": {name: interval(draws[name], level) for name in values},
        "standard_error": {name: rounded(standard_error(draws[name])) for name in values},
    }


def standard_error(draws: Floats) -> float:
    """The standard deviation of the draws; infinite if any of them is."""
    return float(np.std(draws)) if np.isfinite(draws).all() else math.inf


def envelope(*parts: dict[str, Any]) -> dict[str, Any]:
    """The first figure's value with an interval that covers those of all."""
    lows, highs = ([part[side] for part in parts] for side in ("low", "high"))
    return {
        "value": parts[0]["value"],
        "low": None if None in lows else min(lows),
        "high": None if None in highs else max(highs),
    }


def rounded(value: float) -> float | None:
    """The value with six significant digits; None if it is not finite, for which JSON has no number."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
