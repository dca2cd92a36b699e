"""Which points decide a scaling law: both fits again without each budget, and without points of one kind."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import InputError
from herdlm.scaling.intervals import rounded
from herdlm.scaling.isoflop import IsoflopFit, budgets_of, fit_isoflop
from herdlm.scaling.points import Points
from herdlm.scaling.surface import PARAMETERS, SurfaceFit, refit

AHEAD = 1000.0  # the optimum is compared at so many times the largest compute


def deciding(points: Points, isoflop: IsoflopFit | None, surface: SurfaceFit | None) -> list[dict[str, Any]]:
    """Both fits without some points each time; the removal that moves an optimum most comes first."""
    parts = {name: keep for name, keep in _removals(points).items() if PARAMETERS + 2 <= keep.sum() < len(points)}
    if not parts:
        return []
    flops = float(points.flops.max()) * AHEAD
    surfaces = None if surface is None else refit(points, surface, list(parts.values()))
    rows = []
    for number, (name, keep) in enumerate(parts.items()):
        row: dict[str, Any] = {"without": name, "points": int((~keep).sum())}
        moved = []
        if isoflop is not None and (without := _isoflop(points.some(keep))) is not None:
            change = float(without.tokens(flops)[0] / isoflop.tokens(flops)[0])
            row["isoflop"] = {"tokens_exponent": rounded(float(without.tokens.exponent[0])), "times": rounded(change)}
            moved.append(abs(np.log(change)))
        if surface is not None and surfaces is not None:
            whole = float(surface.best.optimum(flops, points.flops_factor)[1][0])
            change = float(surfaces.optimum(flops, points.flops_factor)[1][number]) / whole
            slope = float(surfaces.tokens_slope()[number])
            row["parametric"] = {"tokens_exponent": rounded(slope), "times": rounded(change)}
            moved.append(abs(np.log(change)) if 0 < change < np.inf else np.inf)
        if moved:
            rows.append((max(moved), row))
    return [row for _, row in sorted(rows, key=lambda pair: -pair[0])]


def _isoflop(points: Points) -> IsoflopFit | None:
    try:
        return fit_isoflop(points, draws=0, seed=0)
    except InputError:
        return None


def _removals(points: Points) -> dict[str, NDArray[np.bool_]]:
    """By the name of what is removed, the points that stay."""
    parts: dict[str, NDArray[np.bool_]] = {}
    budgets = budgets_of(points)
    for members in budgets:
        keep = np.ones(len(points), bool)
        keep[members] = False
        parts[f"the budget of {np.exp(np.log(points.flops[members]).mean()):.3g} FLOPs"] = keep
    ratio = np.log(points.tokens / points.params)
    parts["the tenth with the fewest tokens per parameter"] = ratio > np.quantile(ratio, 0.1)
    parts["the tenth with the most tokens per parameter"] = ratio < np.quantile(ratio, 0.9)
    parts["the quarter with the least compute"] = points.flops > np.quantile(points.flops, 0.25)
    parts["the quarter with the most compute"] = points.flops < np.quantile(points.flops, 0.75)
    return parts
