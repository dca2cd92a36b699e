"""Fits scaling laws to a file of points in two ways, and says what they disagree on and which points decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from herdlm.base.errors import InputError
from herdlm.scaling.influence import deciding
from herdlm.scaling.intervals import figure, interval, named, rounded
from herdlm.scaling.isoflop import IsoflopFit, fit_isoflop
from herdlm.scaling.points import Points, read_points
from herdlm.scaling.surface import NAMES, SurfaceFit, fit_surface
from herdlm.scaling.warn import bias_of_parabolas, warnings_of

DRAWS, LEVEL = 200, 0.95


@dataclass(frozen=True, slots=True)
class Laws:
    """Both fits of the same points; a fit that the points do not allow is None, and ``why`` says why."""

    points: Points
    isoflop: IsoflopFit | None
    surface: SurfaceFit | None
    why: dict[str, str]
    level: float


def fit_laws(
    points: Points, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0, keep_all: bool = False
) -> Laws:
    """Fit parabolas and the surface.

    Raises:
        InputError: the points allow neither.
    """
    if not 0 < level < 1 or draws < 20:
        raise InputError(f"an interval of {level:g} from {draws} draws", "Give a level between 0 and 1, and 20 draws")
    why: dict[str, str] = {}
    isoflop, surface = None, None
    try:
        isoflop = fit_isoflop(points, draws=draws, seed=seed, keep_all=keep_all)
    except InputError as error:
        why["isoflop"] = error.what
    try:
        surface = fit_surface(points, draws=draws, seed=seed, keep_all=keep_all)
    except InputError as error:
        why["parametric"] = error.what
    if isoflop is None and surface is None:
        raise InputError("; ".join(why.values()), "Add points: at least 7 models, or 2 budgets of 4 sizes each")
    return Laws(points, isoflop, surface, why, level)


def fit_file(
    path: Path,
    *,
    where: Sequence[str] = (),
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
    keep_all: bool = False,
) -> tuple[Laws, dict[str, Any]]:
    """Fit the points of a CSV file; returns the laws, and what ``herdlm scaling fit --json`` prints (docs/scaling.md).

    Raises:
        InputError: the file has a bad row, or its points allow neither fit.
    """
    laws = fit_laws(read_points(path, where), draws=draws, level=level, seed=seed, keep_all=keep_all)
    return laws, {"file": str(path), "draws": draws, "seed": seed} | summary(laws)


def summary(laws: Laws) -> dict[str, Any]:
    """Both fits with their intervals, their disagreement, what decides, and warnings."""
    points, isoflop, surface = laws.points, laws.isoflop, laws.surface
    bias = bias_of_parabolas(points, surface.best) if isoflop and surface else None
    result: dict[str, Any] = {
        "points": len(points),
        "columns": dict(points.columns),
        "flops_factor": rounded(points.flops_factor),
        "flops_range": [rounded(float(points.flops.min())), rounded(float(points.flops.max()))],
        "level": laws.level,
        "isoflop": None if isoflop is None else isoflop_summary(isoflop, laws.level) | {"bias": bias},
        "parametric": None if surface is None else surface_summary(points, surface, laws.level),
        "not_fitted": laws.why,
        "disagreement": disagreement(laws),
        "decides": deciding(points, isoflop, surface),
    }
    return result | {"warnings": warnings_of(laws.points, isoflop, surface, result)}


def isoflop_summary(fit: IsoflopFit, level: float) -> dict[str, Any]:
    """The power laws, and the parabola of each budget."""
    laws = {}
    for name, law, draws in (("tokens", fit.tokens, fit.tokens_draws), ("params", fit.params, fit.params_draws)):
        values = {"coefficient": law.factor, "exponent": law.exponent}
        laws[name] = named(values, {"coefficient": draws.factor, "exponent": draws.exponent}, level)
    budgets = [
        {
            "flops": rounded(p.flops),
            "points": len(p.members),
            "tokens": rounded(float(np.exp(p.center))),
            "loss": rounded(p.bottom),
            "curvature": rounded(p.bend),
            "used": p.usable,
            "why_not": p.why or None,
        }
        for p in fit.parabolas
    ]
    return {**laws, "budgets": budgets, "scatter": rounded(fit.scatter)}


def surface_summary(points: Points, fit: SurfaceFit, level: float) -> dict[str, Any]:
    """The surface's parameters, the exponents of its optimum, and the points that it leaves out."""
    best = {name: getattr(fit.best, name) for name in NAMES}
    draws = {name: getattr(fit.draws, name) for name in NAMES}
    for name, inverse in (("tokens_exponent", False), ("params_exponent", True)):
        best[name] = fit.best.tokens_slope(inverse=inverse)
        draws[name] = fit.draws.tokens_slope(inverse=inverse)
    left_out = [
        {
            "params": rounded(float(points.params[n])),
            "tokens": rounded(float(points.tokens[n])),
            "loss": rounded(float(points.loss[n])),
            "fitted": rounded(float(points.loss[n] * np.exp(fit.residuals[n]))),
        }
        for n in np.flatnonzero(~fit.kept)
    ]
    used = fit.residuals[fit.kept]
    return {
        **named(best, draws, level),
        "objective": rounded(fit.objective),
        "residual_sd": rounded(float(used.std())),
        "left_out": left_out,
    }


def disagreement(laws: Laws) -> dict[str, Any] | None:
    """The difference of the exponents, and the optimal tokens of each fit up to 1,000 times the largest compute."""
    points, isoflop, surface = laws.points, laws.isoflop, laws.surface
    if isoflop is None or surface is None:
        return None
    slope, slopes = surface.best.tokens_slope(), surface.draws.tokens_slope()
    apart = isoflop.tokens_draws.exponent - slopes
    low, high = interval(apart, laws.level)
    rows = []
    for times in (1, 10, 100, 1000):
        flops = float(points.flops.max()) * times
        one = figure(isoflop.tokens(flops), isoflop.tokens_draws(flops), laws.level)
        two = figure(
            surface.best.optimum(flops, points.flops_factor)[1],
            surface.draws.optimum(flops, points.flops_factor)[1],
            laws.level,
        )
        ratio = rounded(one["value"] / two["value"])
        rows.append({"flops": rounded(flops), "isoflop_tokens": one, "parametric_tokens": two, "ratio": ratio})
    return {
        "tokens_exponent": {"value": rounded(float(isoflop.tokens.exponent[0] - slope[0])), "low": low, "high": high},
        "significant": low is not None and high is not None and not low <= 0 <= high,
        "optimum": rows,
    }
