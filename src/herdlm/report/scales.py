"""Axes of charts: positions of values, and ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from ``low`` to ``high``, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """The position of a value, from 0 (low end) to 1 (high end)."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)

    def ticks(self, count: int = 5) -> list[float]:
        """Up to about ``count`` round values on the axis."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            ticks = [m * 10.0**p for p in powers for m in (1, 2, 5) if self.low <= m * 10.0**p <= self.high]
            if len(ticks) >= 3:
                return ticks
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def covering(values: Iterable[float], *, log: bool = False, margin: float = 0.06, zero: bool = False) -> Scale:
    """A scale that covers ``values`` with a margin at both ends; with ``zero`` it starts at 0."""
    values = list(values)
    low, high = min(values), max(values)
    if log:
        room = max((high / low) ** margin, 1.001)
        return Scale(low / room, high * room, log=True)
    low = min(low, 0.0) if zero else low
    room = margin * (high - low) or max(abs(high), 1.0) * margin
    return Scale(low if zero and low == 0 else low - room, high + room)


def tick_text(value: float) -> str:
    """The short text of a tick: 1,500,000 becomes 1.5M."""
    for unit, text in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{text}"
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
