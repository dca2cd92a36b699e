"""A scaling fit as one HTML page: curves of equal compute, optimal tokens, residuals, what decides."""

from __future__ import annotations

from typing import Any

import numpy as np

from herdlm.plan.cost import short
from herdlm.report.charts import LOOKS, Series, chart
from herdlm.report.frame import Section, framed
from herdlm.report.markup import Child, Html, table, tag
from herdlm.report.scales import covering
from herdlm.scaling.fit import Laws
from herdlm.scaling.isoflop import Parabola
from herdlm.scaling.points import Points

MOST_CURVES = 12


def render_fit(laws: Laws, result: dict[str, Any]) -> str:
    """Render the result of a fit. Equal data give equal bytes."""
    sections: list[Section] = []
    if laws.isoflop is not None:
        sections.append(("curves", "Curves of equal compute", _curves(laws, result["isoflop"])))
    sections.append(("optimum", "Optimal tokens by compute", _optimum(laws, result)))
    if laws.surface is not None:
        sections.append(("surface", "The parametric fit", _surface(laws, result["parametric"])))
    sections.append(("decides", "What decides", [_deciding(result["decides"])]))
    sections.append(("warnings", "Warnings", [_list(result["warnings"])]))
    return framed(
        "Scaling laws",
        tag(
            "p",
            f"{result['points']} models from {result['flops_range'][0]:.3g} to {result['flops_range'][1]:.3g} FLOPs.",
        ),
        sections,
        f"Intervals hold {result['level']:.0%} of a bootstrap. They do not cover that losses may follow another form.",
        kind="herdlm scaling",
    )


def _curves(laws: Laws, iso: dict[str, Any]) -> list[Child]:
    assert laws.isoflop is not None
    shown = laws.isoflop.parabolas
    if len(shown) > MOST_CURVES:
        shown = tuple(shown[n] for n in np.linspace(0, len(shown) - 1, MOST_CURVES).round().astype(int))
    series = []
    for number, parabola in enumerate(shown):
        series += _curve(laws.points, parabola, number % LOOKS + 1)
    minima = [(float(np.exp(p.center)), p.bottom) for p in shown if p.usable]
    series.append(Series("minima", minima, 5, line=False, mark="square"))
    tokens = [x for s in series for x, _ in s.points]
    bounds = iso["tokens"]["interval"]["exponent"]
    return [
        tag(
            "p",
            f"Each budget's losses and the parabola through them. The minima follow tokens = "
            f"{iso['tokens']['coefficient']:.4g} C",
            tag("sup", f"{iso['tokens']['exponent']:.4f}"),
            f" (exponent {bounds[0]:.4g} to {bounds[1]:.4g}).",
        ),
        chart(
            series,
            title="Loss against training tokens, by budget",
            alt=f"Parabolas of {len(shown)} budgets; their minima move to more tokens and lower loss.",
            x="tokens",
            y="loss",
            x_scale=covering(tokens, log=True),
        ),
        table(
            "Budgets",
            ("FLOPs", "Models", "Tokens at the minimum", "Loss there", "Used"),
            (
                (
                    f"{b['flops']:.3g}",
                    b["points"],
                    short(b["tokens"]),
                    f"{b['loss']:.4f}",
                    "yes" if b["used"] else f"no: {b['why_not']}",
                )
                for b in iso["budgets"]
            ),
            text_columns=(0, 4),
        ),
    ]


def _curve(points: Points, parabola: Parabola, look: int) -> list[Series]:
    members = parabola.members
    measured = sorted((float(points.tokens[n]), float(points.loss[n])) for n in members)
    x = np.linspace(np.log(measured[0][0]), np.log(measured[-1][0]), 40)
    fitted = parabola.bottom + parabola.bend * (x - parabola.center) ** 2
    line = [(float(a), float(b)) for a, b in zip(np.exp(x), fitted, strict=True)]
    name = f"{parabola.flops:.2g} FLOPs"
    drawn = [Series(name, measured, look, line=False, mark="filled")]
    return [*drawn, Series(f"{name}, parabola", line, look)] if parabola.bend > 0 else drawn


def _optimum(laws: Laws, result: dict[str, Any]) -> list[Child]:
    low, high = float(laws.points.flops.min()), float(laws.points.flops.max()) * 1000
    grid = np.geomspace(low, high, 31)
    series = []
    if laws.isoflop is not None:
        iso = laws.isoflop
        minima = [(p.flops, float(np.exp(p.center))) for p in iso.usable]
        series += [
            Series("minima of parabolas", minima, 1, line=False, mark="filled"),
            Series("power law through them", [(float(c), float(iso.tokens(c)[0])) for c in grid], 1),
        ]
    if laws.surface is not None:
        best = laws.surface.best
        line = [(float(c), float(best.optimum(c, laws.points.flops_factor)[1][0])) for c in grid]
        series.append(Series("parametric fit", line, 2))
    said: list[Child] = []
    if apart := result["disagreement"]:
        rows: list[tuple[Child, ...]] = []
        for row in apart["optimum"]:
            cells = [_tokens(row[f"{name}_tokens"]) for name in ("isoflop", "parametric")]
            rows.append((f"{row['flops']:.3g}", *cells, f"{row['ratio']:.2f}"))
        said.append(table("Optimal tokens with intervals", ("FLOPs", "Parabolas", "Parametric fit", "Ratio"), rows))
    tokens = [y for s in series for _, y in s.points]
    return [
        chart(
            series,
            title="Compute-optimal tokens, up to a thousand times the largest run",
            alt="Optimal tokens against FLOPs, both logarithmic, by both fits.",
            x="FLOPs",
            y="tokens",
            x_scale=covering(grid.tolist(), log=True),
            y_scale=covering(tokens, log=True),
            x_ticks=_decades(low, high),
            y_text=short,
        ),
        *said,
    ]


def _decades(low: float, high: float) -> list[tuple[float, str]]:
    powers = range(int(np.ceil(np.log10(low))), int(np.floor(np.log10(high))) + 1)
    step = max(len(powers) // 6, 1)
    return [(10.0**p, f"1e{p}") for p in powers][::step]


def _tokens(figure: dict[str, Any]) -> str:
    low, high = ("unbounded" if figure[side] is None else short(figure[side]) for side in ("low", "high"))
    return f"{short(figure['value'])} ({low} to {high})"


def _surface(laws: Laws, fit: dict[str, Any]) -> list[Child]:
    assert laws.surface is not None
    points, kept = laws.points, laws.surface.kept
    ratio, off = points.tokens / points.params, -100 * laws.surface.residuals
    used = sorted((float(r), float(e)) for r, e in zip(ratio[kept], off[kept], strict=True))
    names = ("E", "A", "B", "alpha", "beta", "tokens_exponent", "params_exponent")
    rows: list[tuple[Child, ...]] = []
    for name in names:
        low, high = ("unbounded" if bound is None else f"{bound:.4g}" for bound in fit["interval"][name])
        rows.append((name.replace("_", " "), f"{fit[name]:.4g}", f"{low} to {high}"))
    return [
        table("E + A / N^alpha + B / D^beta", ("Parameter", "Value", "Interval"), rows),
        chart(
            [Series("models", used, 2, line=False, mark="filled")],
            title="Measured loss above the fit, by tokens per parameter",
            alt=f"Residuals in percent; their standard deviation is {100 * fit['residual_sd']:.2f}%.",
            x="tokens per parameter",
            y="% above the fit",
            x_scale=covering([x for x, _ in used], log=True),
        ),
        tag("p", f"{len(fit['left_out'])} models lie far off the fit and are left out.") if fit["left_out"] else None,
    ]


def _deciding(rows: list[dict[str, Any]]) -> Html:
    def cells(row: dict[str, Any], name: str) -> list[str]:
        part = row.get(name)
        return ["-", "-"] if part is None else [f"{part['tokens_exponent']:.3f}", _times(part["times"])]

    return table(
        "Both fits without some models; the last column of each is by what factor optimal tokens far ahead change",
        ("Without", "Models", "Parabolas: exponent", "Tokens times", "Parametric: exponent", "Tokens times"),
        ((row["without"], row["points"], *cells(row, "isoflop"), *cells(row, "parametric")) for row in rows),
    )


def _times(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:.2f}"


def _list(lines: list[str]) -> Html:
    return tag("ul", [tag("li", line) for line in lines]) if lines else tag("p", "None.")
