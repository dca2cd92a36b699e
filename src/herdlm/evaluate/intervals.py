"""Confidence intervals of measured rates, without which a difference of small models is a guess."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """As an object; what is not known is null."""
        return {name: finite(getattr(self, name)) for name in ("value", "low", "high")}


def finite(value: float) -> float | None:
    """A number that JSON can write, or None."""
    return value if math.isfinite(value) else None


def pass_rate(right: Sequence[bool]) -> Estimate:
    """The share of right answers with Wilson's interval (Wilson 1927), which is valid near 0 and 1 too."""
    n = len(right)
    if not n:
        return Estimate(math.nan, 0.0, 1.0)
    rate = sum(right) / n
    center = (rate + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(rate * (1 - rate) / n + Z95**2 / (4 * n**2))
    return Estimate(rate, max(center - half, 0.0), min(center + half, 1.0))


def paired_difference(before: Sequence[bool], after: Sequence[bool]) -> Estimate:
    """Mean of ``after - before`` over the same questions, with an interval for paired rates.

    The interval is Agresti and Min's (2005): half a question is added to each of the four outcomes, so that the
    interval keeps a width if no answer changed.
    """
    n = len(before)
    gained = sum(a and not b for b, a in zip(before, after, strict=True))
    lost = sum(b and not a for b, a in zip(before, after, strict=True))
    size = n + 2
    center = (gained - lost) / size
    half = Z95 * math.sqrt((gained + lost + 1) - (gained - lost) ** 2 / size) / size
    value = (gained - lost) / n
    return Estimate(value, min(center - half, value), max(center + half, value))
