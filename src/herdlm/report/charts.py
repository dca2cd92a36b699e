"""Charts as inline SVG whose text stays readable at every width.

Lines are in an SVG that stretches with the page while strokes keep their width; all text is HTML beside it. Colors
come from the page's style sheet, so one chart serves light and dark mode. Series differ in dashes and marks, not
only in color.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from herdlm.report.data import Interval
from herdlm.report.markup import Child, Html, tag
from herdlm.report.scales import Scale, covering, tick_text

LOOKS = 6  # combinations of color and dashes
SPAN = 1000  # width and height of the SVG in its own units


@dataclass(frozen=True, slots=True)
class Series:
    """Points (x, y) and error bars (x, low, high). ``look`` picks color and dashes, 1 to :data:`LOOKS`."""

    name: str
    points: Sequence[tuple[float, float]]
    look: int
    line: bool = True
    mark: Literal["none", "filled", "open", "square"] = "none"
    bars: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A labeled line across the chart at a value of one axis; ``band`` shades an interval around it."""

    axis: Literal["x", "y"]
    at: float
    text: str
    band: tuple[float, float] | None = None


def chart(
    series: Sequence[Series],
    *,
    title: str,
    alt: str,
    x: str,
    y: str,
    x_scale: Scale | None = None,
    y_scale: Scale | None = None,
    x_ticks: Sequence[tuple[float, str]] | None = None,
    y_text: Callable[[float], str] = tick_text,
    rules: Sequence[Rule] = (),
) -> Html:
    """Draw one or more series.

    Args:
        alt: a text that replaces the chart for screen readers.
        x, y: labels of the axes, with units.
        x_ticks: (value, text) of each tick; by default round values.
    """
    x_scale = x_scale or covering([px for s in series for px, _ in s.points], margin=0.02)
    if y_scale is None:
        bands = [v for rule in rules if rule.band and rule.axis == "y" for v in rule.band]
        values = [py for s in series for _, py in s.points] + [v for s in series for bar in s.bars for v in bar[1:]]
        y_scale = covering(values + bands)
    marked = x_ticks if x_ticks is not None else [(v, tick_text(v)) for v in x_scale.ticks()]
    grid = [_line(0, y_scale.at(v), 1, y_scale.at(v), "grid") for v in y_scale.ticks()]
    grid += [_line(x_scale.at(v), 0, x_scale.at(v), 1, "grid") for v, _ in marked]
    drawing = tag(
        "svg",
        grid,
        [_rule(rule, x_scale, y_scale) for rule in rules],
        [_series(s, x_scale, y_scale) for s in series],
        viewBox=f"0 0 {SPAN} {SPAN}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    plot = tag(
        "div",
        tag("div", y, class_="axis-name"),
        tag("div", [_at("top", 1 - y_scale.at(v), y_text(v)) for v in y_scale.ticks()], class_="y-ticks"),
        tag("div", drawing, [_rule_text(rule, x_scale, y_scale) for rule in rules], class_="area"),
        tag("div", [_at("left", x_scale.at(v), text) for v, text in marked], class_="x-ticks"),
        tag("div", x, class_="axis-name x-name"),
        class_="plot",
        role="img",
        aria_label=alt,
    )
    keys = [tag("li", _key(s), s.name) for s in series]
    return tag("figure", tag("figcaption", title), plot, tag("ul", keys, class_="legend") if len(keys) > 1 else None)


def interval_strip(interval: Interval, scale: Scale, *, look: int = 1, reference: float | None = None) -> Html:
    """One interval as a bar with a dot, for a table or card; ``reference`` adds a vertical line."""
    drawn = [
        _line(0, 0.5, 1, 0.5, "grid"),
        _line(scale.at(reference), 0, scale.at(reference), 1, "reference") if reference is not None else None,
        _line(scale.at(interval.low), 0.5, scale.at(interval.high), 0.5, f"look{look} bar"),
        _dot(scale.at(interval.value), 0.5, f"look{look} filled"),
    ]
    return tag(
        "svg", drawn, class_="strip", viewBox=f"0 0 {SPAN} {SPAN}", preserveAspectRatio="none", aria_hidden="true"
    )


def share_bar(share: float) -> Html:
    """A horizontal bar for a share from 0 to 1."""
    return tag("span", tag("span", style=f"width:{100 * share:.2f}%"), class_="share", aria_hidden="true")


def _series(series: Series, x: Scale, y: Scale) -> Child:
    places = [(x.at(px), y.at(py)) for px, py in series.points]
    look = f"look{series.look}"
    line = None
    if series.line and len(places) > 1:
        path = "M" + "L".join(f"{_c(px)} {_c(1 - py)}" for px, py in places)
        line = tag("path", d=path, class_=f"{look} line")
    bars = [_line(x.at(px), y.at(low), x.at(px), y.at(high), f"{look} bar") for px, low, high in series.bars]
    dots = [_dot(px, py, f"{look} {series.mark}") for px, py in places] if series.mark != "none" else []
    return [line, bars, dots]


def _rule(rule: Rule, x: Scale, y: Scale) -> Child:
    if rule.axis == "x":
        return _line(x.at(rule.at), 0, x.at(rule.at), 1, "reference")
    band = None
    if rule.band:
        low, high = (y.at(v) for v in rule.band)
        band = tag("rect", x=0, y=_c(1 - high), width=SPAN, height=_c(high - low), class_="band")
    return [band, _line(0, y.at(rule.at), 1, y.at(rule.at), "reference")]


def _rule_text(rule: Rule, x: Scale, y: Scale) -> Html:
    if rule.axis == "x":
        side = "rule-x before" if x.at(rule.at) > 0.5 else "rule-x"
        return tag("span", rule.text, class_=side, style=f"left:{100 * x.at(rule.at):.2f}%")
    return tag("span", rule.text, class_="rule-y", style=f"top:{100 * (1 - y.at(rule.at)):.2f}%")


def _key(series: Series) -> Html:
    """A sample of how a series is drawn, for the legend."""
    line = _line(0, 0.5, 1, 0.5, f"look{series.look} line") if series.line else None
    dot = _dot(0.5, 0.5, f"look{series.look} {series.mark}") if series.mark != "none" else None
    return tag(
        "svg", line, dot, class_="key", viewBox=f"0 0 {SPAN} {SPAN}", preserveAspectRatio="none", aria_hidden="true"
    )


def _dot(x: float, y: float, style: str) -> Child:
    """A mark that stays round in a stretched SVG: a stroke of no length with round (or square) caps."""
    path = f"M{_c(x)} {_c(1 - y)}h.01"
    hole = tag("path", d=path, class_="hole") if style.endswith("open") else None
    return [tag("path", d=path, class_=f"{style} dot"), hole]


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Html:
    return tag("path", d=f"M{_c(x1)} {_c(1 - y1)}L{_c(x2)} {_c(1 - y2)}", class_=style)


def _at(side: str, share: float, text: str) -> Html:
    return tag("span", text, style=f"{side}:{100 * share:.2f}%")


def _c(share: float) -> str:
    """A coordinate, rounded to a tenth of a unit."""
    return f"{SPAN * share:.1f}".removesuffix(".0")
