"""Forecasts for a compute budget: optimal size, tokens and loss by both fits, checked on the largest models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.scaling.fit import Laws, fit_laws
from herdlm.scaling.intervals import envelope, figure, rounded
from herdlm.scaling.isoflop import Parabola
from herdlm.scaling.minima import fit_minima
from herdlm.scaling.points import Floats, Points
from herdlm.scaling.surface import PARAMETERS, SurfaceFit

HELD_OUT = 0.2  # share of the points, those with most compute
FLAT = 0.005  # of the loss
FAR_AHEAD = 2.0  # decades


def forecast(laws: Laws, flops: float, *, seed: int = 0) -> dict[str, Any]:
    """What the fits say of a run with ``flops`` of compute (docs/scaling.md lists the keys).

    Raises:
        InputError: ``flops`` is not a positive number.
    """
    if not 0 < flops < np.inf:
        raise InputError(f"{flops:g} FLOPs", "Give the compute of the run, such as 1e24")
    methods = by_method(laws, flops, seed=seed)
    checked = held_out(laws, seed=seed)
    chosen = _chosen(laws, checked)
    order = [chosen, *(name for name in methods if name != chosen)]
    whole = {key: envelope(*(methods[name][key] for name in order)) for key in ("params", "tokens", "loss")}
    ahead = float(np.log10(flops / laws.points.flops.max()))
    return {
        "flops": flops,
        "decades_ahead": rounded(ahead),
        "chosen": chosen,
        **whole,
        "methods": methods,
        "flat": None if laws.surface is None else flat_range(laws.points, laws.surface, flops),
        "held_out": checked,
        "warnings": _warnings(laws, methods, ahead),
    }


def by_method(laws: Laws, flops: float, *, seed: int) -> dict[str, dict[str, Any]]:
    """Optimal parameters, tokens and the loss there by each fit, with intervals.

    The interval of the loss is that of one training: it holds the scatter of single points as well.
    """
    made = {}
    factor, level = laws.points.flops_factor, laws.level
    if laws.surface is not None:
        best, draws = laws.surface.best, laws.surface.draws
        (params, tokens), (some_params, some_tokens) = best.optimum(flops, factor), draws.optimum(flops, factor)
        losses = draws.loss(some_params, some_tokens) * _noise(laws.surface, len(some_params), seed)
        made["parametric"] = {
            "params": figure(params, some_params, level),
            "tokens": figure(tokens, some_tokens, level),
            "loss": figure(best.loss(params, tokens), losses, level),
        }
    if laws.isoflop is not None:
        iso = laws.isoflop
        value, losses = fit_minima(iso, flops, draws=len(iso.tokens_draws.exponent), seed=seed)
        made["isoflop"] = {
            "params": figure(iso.params(flops), iso.params_draws(flops), level),
            "tokens": figure(iso.tokens(flops), iso.tokens_draws(flops), level),
            "loss": figure(value, losses, level),
        }
    return made


def _noise(fit: SurfaceFit, draws: int, seed: int) -> Floats:
    """Factors [draws] by which single trainings scatter about the surface, drawn from the residuals."""
    used = fit.residuals[fit.kept]
    scaled = (used - np.median(used)) * np.sqrt(len(used) / (len(used) - PARAMETERS))
    return np.exp(stream(seed, "forecast noise").choice(scaled, draws))


def _chosen(laws: Laws, checked: dict[str, Any] | None) -> str:
    """The surface, which uses all points and is not biased by where they lie, unless the points speak against it.

    They do where they leave its exponents open, and where parabolas forecast held-out minima at half the error.
    """
    if laws.surface is None or laws.isoflop is None:
        return "isoflop" if laws.surface is None else "parametric"
    draws = laws.surface.draws
    if any(np.std(d) > 0.3 * np.mean(d) for d in (draws.alpha, draws.beta)):
        return "isoflop"
    errors = [(checked or {}).get(name, {}).get("minima_error") for name in ("isoflop", "parametric")]
    return "isoflop" if None not in errors and errors[0] < errors[1] / 2 else "parametric"


def flat_range(points: Points, fit: SurfaceFit, flops: float) -> dict[str, Any]:
    """How far tokens and parameters may move from the optimum at equal compute before the loss rises by 0.5%."""
    compute = flops / points.flops_factor
    best = fit.best.optimum(flops, points.flops_factor)[0][0]
    params = best * np.exp(np.linspace(-5, 5, 2001))
    loss = fit.best.loss(params, compute / params)
    near = params[loss <= loss.min() * (1 + FLAT)]
    return {
        "loss_rises_by": FLAT,
        "params": [rounded(float(near.min())), rounded(float(near.max()))],
        "tokens": [rounded(float(compute / near.max())), rounded(float(compute / near.min()))],
    }


def held_out(laws: Laws, *, seed: int) -> dict[str, Any] | None:
    """The error of both fits on the fifth of the points with most compute, when they are fitted to the others.

    Returns:
        None where the others allow no fit.
    """
    points = laws.points
    bound = float(np.quantile(points.flops, 1 - HELD_OUT)) * (1 - 1e-9)
    if laws.isoflop is not None:  # whole budgets
        largest = [p.flops for p in laws.isoflop.usable if p.flops >= bound * 0.9]
        bound = min([bound, *(flops * 0.9 for flops in largest)])
    large = points.flops >= bound
    if large.all() or not large.any():
        return None
    try:
        small = fit_laws(points.some(~large), draws=len(_draws(laws)), level=laws.level, seed=seed)
    except InputError:
        return None
    result: dict[str, Any] = {"models": int(large.sum()), "above_flops": rounded(bound)}
    minima = [p for p in laws.isoflop.usable if p.flops >= bound] if laws.isoflop is not None else []
    flops, bottoms = np.array([p.flops for p in minima]), np.array([p.bottom for p in minima])
    if small.surface is not None:
        top, best = points.some(large), small.surface.best
        errors = best.loss(top.params, top.tokens) / top.loss - 1
        at_minima = [float(best.loss(*best.optimum(c, points.flops_factor))[0]) for c in flops]
        result["parametric"] = {
            "loss_error": rounded(float(np.abs(errors).mean())),
            "loss_bias": rounded(float(errors.mean())),
            "minima_error": _mean_error(at_minima, bottoms),
            "tokens_error": _tokens_error([best.optimum(c, points.flops_factor)[1] for c in flops], minima),
        }
    if small.isoflop is not None and minima:
        at_minima = [fit_minima(small.isoflop, c, draws=20, seed=seed)[0] for c in flops]
        result["isoflop"] = {
            "minima_error": _mean_error(at_minima, bottoms),
            "tokens_error": _tokens_error([small.isoflop.tokens(c) for c in flops], minima),
        }
    return result


def _mean_error(forecast_: Sequence[float], measured: Floats) -> float | None:
    return rounded(float(np.abs(np.array(forecast_) / measured - 1).mean())) if len(measured) else None


def _tokens_error(forecast_: Sequence[Floats], tops: Sequence[Parabola]) -> list[float | None]:
    """Optimal tokens over those of the budget's own parabola, less one."""
    return [rounded(float(f[0] / np.exp(p.center)) - 1) for f, p in zip(forecast_, tops, strict=True)]


def _draws(laws: Laws) -> Floats:
    fit = laws.isoflop
    if fit is not None:
        return fit.tokens_draws.exponent
    assert laws.surface is not None
    return laws.surface.draws.alpha


def _warnings(laws: Laws, methods: dict[str, dict[str, Any]], ahead: float) -> list[str]:
    told = []
    if ahead > FAR_AHEAD:
        told.append(f"The run lies {ahead:.1f} decades of compute beyond the largest point.")
    if len(methods) == 2:
        ratio = methods["isoflop"]["tokens"]["value"] / methods["parametric"]["tokens"]["value"]
        if not 1 / 1.5 < ratio < 1.5:
            told.append(
                f"The parabolas ask for {ratio:.2g} times the tokens of the parametric fit; the interval has both."
            )
    else:
        told.append(f"Only one fit is possible, {next(iter(methods))}: no second one checks it.")
    return told
