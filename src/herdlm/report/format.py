"""Formats numbers for reports and the terminal."""

from __future__ import annotations

from decimal import Decimal

from herdlm.report.data import Check, Interval

MINUS = "\N{MINUS SIGN}"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign; zero has none after rounding."""
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", MINUS)


def points(share: float) -> str:
    """A difference of shares in percentage points, without the unit."""
    return signed(100 * share)


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{100 * share:.{digits}f}%"


def span(low: float, high: float) -> str:
    """The interval of a difference of shares, in points."""
    return f"{points(low)} to {points(high)}"


def rate(interval: Interval) -> str:
    """A rate with its interval."""
    return f"{percent(interval.value)} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def figure(check: Check) -> str:
    """A check's figure with its unit."""
    if check.figure == "difference":
        return f"{points(check.value)} points"
    return percent(check.value) if check.figure == "rate" else f"{signed(100 * check.value)}%"


def interval(check: Check) -> str:
    """A check's interval; "one measurement" if it has none."""
    if check.low is None or check.high is None:
        return "one measurement"
    return (
        span(check.low, check.high)
        if check.figure == "difference"
        else f"{percent(check.low)} to {percent(check.high)}"
    )


def loss(value: float) -> str:
    """A loss in nats per token, or bits per byte."""
    return f"{value:.3f}"


def count(value: float) -> str:
    """A whole number with thousands separators."""
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes in decimal units."""
    if value < 1000:
        return f"{value:.0f} bytes"
    for unit, bytes_ in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)):
        if value < 1000 * bytes_ or unit == "TB":
            return f"{value / bytes_:,.1f} {unit}"
    raise AssertionError


def tiny(value: float) -> str:
    """A number far below 1, with two significant digits."""
    return format(Decimal(f"{value:.1e}"), "f").replace("-", MINUS) if abs(value) < 1 else f"{value:.2f}"


def seconds(value: float) -> str:
    """A duration."""
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def words(name: str) -> str:
    """An identifier as words."""
    return name.replace("_", " ")
