"""Optimal tokens by compute, the way of the Llama 3 report (section 3.2.1): a parabola for each budget, a power law.

For each budget a parabola in ln(tokens) is fitted to the losses; its lowest point is the compute-optimal number of
tokens. A line through ln(tokens) against ln(compute) gives tokens = A C^alpha. Hoffmann et al. (2022), approach 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.scaling.points import Floats, Points

WINDOW = 0.2  # ln: how far the FLOPs of a budget's points range
LEAST = 4  # points of a budget that the file does not name
FAR = 12.0  # robust standard deviations from a parabola at which a point is left out
LEAST_SPREAD = 2.5e-4  # of the loss
BEYOND = 0.35  # ln: how far outside its points a parabola's minimum is believed
Axis = Literal["tokens", "params"]


@dataclass(frozen=True, slots=True)
class Parabola:
    """Loss = bottom + bend (ln(x) - center)^2 at one budget, x being tokens or parameters.

    Args:
        members: numbers of the points that it goes through, without outliers.
        residuals: measured minus fitted loss of each member.
        usable: whether its minimum enters the power law; else ``why`` says why not.
    """

    flops: float
    members: NDArray[np.int64]
    center: float
    bottom: float
    bend: float
    residuals: Floats
    usable: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Power:
    """y = factor x^exponent; arrays of one entry, or of one an entry of the bootstrap."""

    factor: Floats
    exponent: Floats

    def __call__(self, x: float) -> Floats:
        """The value at ``x``."""
        value: Floats = np.exp(np.log(self.factor) + self.exponent * np.log(x))
        return value


@dataclass(frozen=True, slots=True)
class IsoflopFit:
    """Parabolas and the power laws through their minima; draws are of the bootstrap.

    Args:
        scatter: standard deviation of ln(optimum) about the line beyond what noise within the budgets explains.
    """

    parabolas: tuple[Parabola, ...]
    tokens: Power
    tokens_draws: Power
    params: Power
    params_draws: Power
    scatter: float

    @property
    def usable(self) -> list[Parabola]:
        """The parabolas whose minima the power laws go through."""
        return [parabola for parabola in self.parabolas if parabola.usable]


def budgets_of(points: Points) -> list[NDArray[np.int64]]:
    """The numbers of the points of each budget, by the file's own budgets, or by where FLOPs lie close together."""
    if points.budget is not None:
        return [np.flatnonzero(points.budget == value) for value in np.unique(points.budget)]
    logs = np.log(points.flops)
    free, groups = np.ones(len(logs), bool), []
    centers: list[float] = []
    while free.any():
        members, center = _densest(logs, free)
        if len(members) < LEAST:
            break
        free[members] = False
        if all(abs(center - other) >= WINDOW for other in centers):
            centers.append(center)
            groups.append(members)
    return [groups[n] for n in np.argsort(centers)]


def _densest(logs: Floats, free: NDArray[np.bool_]) -> tuple[NDArray[np.int64], float]:
    """The free points in the window of width WINDOW that has most of them, the tightest of equals."""
    order = np.flatnonzero(free)[np.argsort(logs[free], kind="stable")]
    x = logs[order]
    ends = np.searchsorted(x, x + WINDOW, side="right")
    counts = ends - np.arange(len(x))
    spans = x[ends - 1] - x
    first = int(np.lexsort((spans, -counts))[0])
    members = order[first : ends[first]]
    return members, float(np.median(logs[members]))


def fit_isoflop(points: Points, *, draws: int, seed: int, keep_all: bool = False) -> IsoflopFit:
    """Fit a parabola for each budget and the power laws of optimal tokens and parameters.

    Intervals: each draw adds resampled residuals (scaled for the fitted parameters) to each parabola, and to its
    minimum what the minima scatter about the line beyond that.

    Raises:
        InputError: fewer than two budgets have a minimum.
    """
    groups = [group for group in budgets_of(points) if len(group) >= 3]
    spread = np.inf if keep_all else _spread(points, groups)
    by_axis = {axis: [_parabola(points, group, axis, spread) for group in groups] for axis in ("tokens", "params")}
    parabolas = by_axis["tokens"]
    usable = [n for n, parabola in enumerate(parabolas) if parabola.usable]
    if len(usable) < 2:
        told = "; ".join(f"{p.flops:.3g} FLOPs: {p.why}" for p in parabolas if p.why)
        raise InputError(
            f"{points.source}: {len(usable)} budgets with a minimum, where a power law needs two"
            + (f" ({told})" if told else ""),
            "Train models of several sizes at each of several budgets",
        )
    noise = _noise([parabolas[n] for n in usable])
    rng = stream(seed, "isoflop bootstrap")
    fits, scatter = {}, 0.0
    for axis, of_axis in by_axis.items():
        own = [n for n in usable if of_axis[n].bend > 0] if axis == "params" else usable
        flops = np.array([of_axis[n].flops for n in own])
        centers = np.array([of_axis[n].center for n in own])
        best = _line(flops, centers[None])
        drawn = best
        if draws:
            minima = np.stack([_redrawn(points, of_axis[n], axis, noise, draws=draws, rng=rng) for n in own], 1)
            drawn, extra = _with_scatter(flops, centers, minima, best, rng)
            scatter = extra if axis == "tokens" else scatter
        fits[axis] = (best, drawn)
    return IsoflopFit(tuple(parabolas), *fits["tokens"], *fits["params"], scatter)


def _parabola(points: Points, group: NDArray[np.int64], axis: str, spread: float = np.inf) -> Parabola:
    """The parabola of a budget, without points further than FAR x ``spread`` x loss from one that resists outliers."""
    flops = float(points.budget[group[0]]) if points.budget is not None else _middle(points.flops[group])
    x, loss = np.log(getattr(points, axis)[group]), points.loss[group]
    if np.isfinite(spread) and len(group) >= 6:
        kept = np.abs(_resistant(x, loss)) <= FAR * spread * loss.min()
        if kept.sum() >= max(5, 0.7 * len(group)):
            group, x, loss = group[kept], x[kept], loss[kept]
    middle = x.mean()
    if len(np.unique(np.round(x, 3))) < 3:
        nothing = np.zeros(len(group))
        return Parabola(flops, group, middle, float(loss.min()), 0.0, nothing, False, "fewer than three sizes")
    bend, slope, level = np.polyfit(x - middle, loss, 2)
    residuals = loss - np.polyval((bend, slope, level), x - middle)
    if bend <= 0:
        return Parabola(flops, group, middle, float(loss.min()), float(bend), residuals, False, "no minimum")
    center, bottom = middle - slope / (2 * bend), level - slope**2 / (4 * bend)
    inside = x.min() - BEYOND <= center <= x.max() + BEYOND
    why = "" if inside else "the minimum lies outside of the points"
    return Parabola(flops, group, float(center), float(bottom), float(bend), residuals, bool(inside), why)


def _resistant(x: Floats, loss: Floats) -> Floats:
    """Residuals from a parabola with the least sum of absolute residuals, by reweighted least squares."""
    design = np.stack([(x - x.mean()) ** 2, x - x.mean(), np.ones_like(x)], 1)
    weights = np.ones_like(x)
    for _ in range(30):
        solution, *_ = np.linalg.lstsq(design * weights[:, None], loss * weights, rcond=None)
        residuals: Floats = loss - design @ solution
        weights = 1 / np.sqrt(np.maximum(np.abs(residuals), 1e-6 * loss.min()))
    return residuals


def _spread(points: Points, groups: list[NDArray[np.int64]]) -> float:
    """A robust standard deviation of residuals relative to the loss, over all budgets; infinite if they are few."""
    relative = [
        _resistant(np.log(points.tokens[group]), points.loss[group]) / points.loss[group].min()
        for group in groups
        if len(group) >= 6
    ]
    return max(1.4826 * float(np.median(np.abs(np.concatenate(relative)))), LEAST_SPREAD) if relative else np.inf


def _middle(values: Floats) -> float:
    return float(np.exp(np.log(values).mean()))


def _noise(parabolas: list[Parabola]) -> float:
    """Standard deviation of residuals, pooled over budgets, relative to the loss."""
    freedom = sum(len(p.members) - 3 for p in parabolas)
    squares = sum(float(((p.residuals / p.bottom) ** 2).sum()) for p in parabolas)
    return float(np.sqrt(squares / freedom)) if freedom > 0 else 0.0


def _redrawn(
    points: Points, parabola: Parabola, axis: str, noise: float, *, draws: int, rng: np.random.Generator
) -> Floats:
    """Minima [draws] of the parabola through losses with other residuals."""
    x = np.log(getattr(points, axis)[parabola.members])
    design = np.stack([(x - x.mean()) ** 2, x - x.mean(), np.ones_like(x)], 1)
    inverse = np.linalg.pinv(design)
    count = len(x)
    fitted = points.loss[parabola.members] - parabola.residuals
    if count > 2 * 3:
        scaled = parabola.residuals * np.sqrt(count / (count - 3))
        errors = rng.choice(scaled - scaled.mean(), (draws, count))
    else:  # too few residuals to draw from: their size is pooled over budgets
        errors = rng.normal(0, noise * parabola.bottom, (draws, count))
    bend, slope, _ = inverse @ (fitted + errors).T
    lost = bend <= 0.05 * parabola.bend
    minima = x.mean() - slope / (2 * np.where(lost, np.nan, bend))
    edge = np.clip(np.nan_to_num(minima, nan=parabola.center), x.min() - BEYOND, x.max() + BEYOND)
    return np.where(lost, rng.uniform(x.min(), x.max(), draws), edge)


def _line(flops: Floats, logs: Floats) -> Power:
    """The power law through (flops, exp(logs)), for each row of ``logs`` [K, budgets]."""
    x = np.log(flops)
    spread = x - x.mean()
    exponent = logs @ spread / (spread @ spread)
    return Power(np.exp(logs.mean(1) - exponent * x.mean()), exponent)


def _with_scatter(
    flops: Floats, centers: Floats, minima: Floats, best: Power, rng: np.random.Generator
) -> tuple[Power, float]:
    """Power laws of the draws, with what the minima scatter beyond them, and the size of that."""
    freedom = len(flops) - 2
    within = float(minima.var(0).mean())
    extra, widen = 0.0, np.ones((len(minima), 1))
    if freedom > 0:
        about = centers - np.log(best.factor) - best.exponent * np.log(flops)
        extra = max(float(about @ about) / freedom - within, 0.0)
        # few budgets say little about their scatter: Student's t in place of the normal distribution
        widen = np.sqrt(freedom / rng.chisquare(freedom, (len(minima), 1)))
    moved = centers + (minima - minima.mean(0)) + np.sqrt(extra) * widen * rng.normal(size=minima.shape)
    return _line(flops, moved), float(np.sqrt(extra))
