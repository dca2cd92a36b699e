"""The lowest loss by compute, through the minima of isoFLOP parabolas: E + K C^-g, or a power law of few minima."""

from __future__ import annotations

import numpy as np

from herdlm.base.seeds import stream
from herdlm.scaling.isoflop import IsoflopFit
from herdlm.scaling.points import Floats

STEEPNESS = np.linspace(0.02, 0.6, 117)  # values of g that are tried
FOR_FLOOR = 5  # minima that let E be fitted


def fit_minima(fit: IsoflopFit, flops: float, *, draws: int, seed: int) -> tuple[float, Floats]:
    """The lowest loss at ``flops``, and draws of the loss of one training there.

    With fewer than five minima E is 0: the forecast is then too low for long extrapolations.
    """
    used = fit.usable
    x = np.log([p.flops for p in used])
    y = np.array([p.bottom for p in used])
    value = _values(x, y[None], np.log(flops))[0]
    fitted = np.array([_values(x, y[None], at)[0] for at in x])
    relative = np.log(y / fitted)
    fitted_parameters = 3 if len(y) >= FOR_FLOOR else 2
    freedom = len(y) - fitted_parameters
    rng = stream(seed, "minima bootstrap")
    if freedom > 0:
        spread = float(np.sqrt(relative @ relative / freedom))
        widen = np.sqrt(freedom / rng.chisquare(freedom, (draws, 1)))
    else:  # as much as points scatter about their parabola
        spread = float(np.mean([np.std(p.residuals) / p.bottom for p in used]))
        widen = np.ones((draws, 1))
    errors = spread * widen * rng.normal(size=(draws, len(y)))
    drawn = _values(x, fitted * np.exp(errors), np.log(flops))
    single = float(np.mean([np.std(p.residuals) / p.bottom for p in used]))
    return float(value), drawn * np.exp(single * rng.normal(size=draws))


def _values(x: Floats, y: Floats, at: float) -> Floats:
    """The fitted loss [K] at ln(C) = ``at`` of minima ``y`` [K, budgets] at ln(C) = ``x``."""
    if len(x) < FOR_FLOOR:
        spread = x - x.mean()
        logs = np.log(y)
        line: Floats = np.exp(logs.mean(1) + (logs @ spread) / (spread @ spread) * (at - x.mean()))
        return line
    best, least = np.full(len(y), np.nan), np.full(len(y), np.inf)
    for g in STEEPNESS:
        column = np.exp(-g * (x - x.mean()))
        centered = column - column.mean()
        k = (y @ centered) / (centered @ centered)
        e = y.mean(1) - k * column.mean()
        below = e < 0  # no loss below zero: a power law without E
        k = np.where(below, (y @ column) / (column @ column), k)
        e = np.where(below, 0.0, e)
        error = ((y - e[:, None] - k[:, None] * column) ** 2).sum(1)
        better = error < least
        least[better] = error[better]
        best[better] = (e + k * np.exp(-g * (at - x.mean())))[better]
    return best
