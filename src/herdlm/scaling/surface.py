"""The loss as a surface, E + A / N^alpha + B / D^beta, fitted to all points at once.

Hoffmann et al. (2022), approach 3: Huber's loss (delta 0.001) on residuals of ln(loss), minimized from many starts.
Besiroglu et al. (2024) repeat it with intervals by bootstrap, as here. With compute C = k N D the loss is lowest at
D = (C / k)^a / G and N = (C / k)^(1 - a) G, with a = alpha / (alpha + beta) and
G = (alpha A / (beta B))^(1 / (alpha + beta)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.scaling.minimize import minimize
from herdlm.scaling.points import Floats, Points

DELTA = 1e-3
STEEPEST = 3.0  # the largest exponent that is tried
STARTS = 6
GRID = np.geomspace(0.05, 1.6, 11)
FAR = 8.0  # robust standard deviations
NAMES = ("E", "A", "B", "alpha", "beta")
PARAMETERS = len(NAMES)


@dataclass(frozen=True, slots=True)
class Surface:
    """Parameters of the surface; arrays [draws] of equal length, or numbers.

    ``E``, ``A`` and ``B`` in the loss's unit; N in parameters, D in tokens.
    """

    E: Floats
    A: Floats
    B: Floats
    alpha: Floats
    beta: Floats

    def loss(self, params: Floats | float, tokens: Floats | float) -> Floats:
        """The loss of models with so many parameters after so many tokens."""
        value: Floats = self.E + self.A * params ** (-self.alpha) + self.B * tokens ** (-self.beta)
        return value

    def optimum(self, flops: float, factor: float) -> tuple[Floats, Floats]:
        """Parameters and tokens with the lowest loss at ``flops`` = factor x parameters x tokens."""
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            ratio = np.log(self.alpha * self.A) - np.log(self.beta * self.B)
            log_g = ratio / (self.alpha + self.beta)
            log_params = log_g + self.tokens_slope(inverse=True) * np.log(flops / factor)
        return np.exp(log_params), np.exp(np.log(flops / factor) - log_params)

    def tokens_slope(self, *, inverse: bool = False) -> Floats:
        """The power of compute by which optimal tokens grow; with ``inverse``, optimal parameters."""
        slope: Floats = (self.beta if inverse else self.alpha) / (self.alpha + self.beta)
        return slope


@dataclass(frozen=True, slots=True)
class SurfaceFit:
    """A fit: the best parameters (arrays of one entry) and draws of the bootstrap.

    Args:
        residuals: ln(fitted / measured), [points].
        kept: the points that the fit uses; the others lie too far off.
    """

    best: Surface
    draws: Surface
    residuals: Floats
    kept: NDArray[np.bool_]
    objective: float


class _Problem:
    """Huber's loss of the points, for a batch of parameter vectors (a, b, e, u, v).

    a and b are the logarithms of the two terms at the points' mean ln N and ln D, e is ln E, and the exponents are
    STEEPEST x logistic(u) and (v).
    """

    def __init__(self, points: Points, weights: Floats) -> None:
        self.x = np.log(points.params)
        self.y = np.log(points.tokens)
        self.at = (self.x.mean(), self.y.mean())
        self.x, self.y = self.x - self.at[0], self.y - self.at[1]
        self.log_loss = np.log(points.loss)
        self.weights = weights

    def residuals(self, theta: Floats) -> Floats:
        """ln(predicted / measured), [K, points]."""
        return self._parts(theta)[0] - self.log_loss

    def _parts(self, theta: Floats) -> tuple[Floats, Floats, Floats]:
        """ln of the predicted loss, and the shares of the two terms in it."""
        a, b, e, u, v = (column[:, None] for column in theta.T)
        with np.errstate(over="ignore", invalid="ignore"):
            one = np.exp(a - _exponent(u) * self.x)
            two = np.exp(b - _exponent(v) * self.y)
            whole = one + two + np.exp(e)
            return np.log(whole), one / whole, two / whole

    def __call__(self, theta: Floats, numbers: NDArray[np.int64]) -> tuple[Floats, Floats]:
        predicted, one, two = self._parts(theta)
        r = predicted - self.log_loss
        weights = self.weights[numbers]
        sign = np.clip(r / DELTA, -1, 1)
        # Huber's loss over delta: |clip(r)| (|r| - |clip(r)| / 2)
        value = np.einsum("kn,kn,kn->k", weights, sign, r - sign * (DELTA / 2))
        pull = weights * sign
        alpha, beta = _exponent(theta[:, 3]), _exponent(theta[:, 4])
        pulled_one, pulled_two = pull * one, pull * two
        d_a, d_b = pulled_one.sum(1), pulled_two.sum(1)
        d_u = -(pulled_one @ self.x) * alpha * (1 - alpha / STEEPEST)
        d_v = -(pulled_two @ self.y) * beta * (1 - beta / STEEPEST)
        return value, np.stack([d_a, d_b, pull.sum(1) - d_a - d_b, d_u, d_v], 1)

    def surface(self, theta: Floats) -> Surface:
        a, b, e, u, v = theta.T
        alpha, beta = _exponent(u), _exponent(v)
        with np.errstate(over="ignore"):
            return Surface(np.exp(e), np.exp(a + alpha * self.at[0]), np.exp(b + beta * self.at[1]), alpha, beta)

    def theta(self, surface: Surface) -> Floats:
        """The inverse of :meth:`surface`."""
        alpha, beta = surface.alpha, surface.beta
        a, b = np.log(surface.A) - alpha * self.at[0], np.log(surface.B) - beta * self.at[1]
        return np.stack([a, b, np.log(surface.E), *(np.log(p / (STEEPEST - p)) for p in (alpha, beta))], 1)


def _exponent(u: Floats) -> Floats:
    value: Floats = STEEPEST / (1 + np.exp(-u))
    return value


def fit_surface(points: Points, *, draws: int, seed: int, keep_all: bool = False) -> SurfaceFit:
    """Fit the surface to the points that it can describe.

    Far off its trend, as after less than a token for each parameter, models do not follow the surface, and a few of
    them move every parameter. So the fit begins from the 90% of the points that agree best, leaves out points that are
    :data:`FAR` robust standard deviations from it, and is repeated on the rest. None is left out if more than a tenth
    would be.

    Intervals come from a Bayesian bootstrap (Rubin, 1981): each draw weighs the points at random, with all weights
    above zero, so that few points stay enough. Draws are widened by sqrt(n / (n - 5)) for the fitted parameters.

    Raises:
        InputError: fewer than 7 points, or fewer than three model sizes or three numbers of tokens.
    """
    if len(points) < PARAMETERS + 2:
        raise InputError(
            f"{points.source}: {len(points)} points for a surface of {PARAMETERS} parameters", "Give at least 7 points"
        )
    for what, values in (("model sizes", points.params), ("numbers of tokens", points.tokens)):
        if len(np.unique(np.round(np.log(values), 2))) < 3:
            raise InputError(
                f"{points.source}: fewer than three {what}", "Give models of three sizes, on three lengths"
            )
    kept = np.ones(len(points), bool) if keep_all else _described(points)
    problem = _Problem(points, kept[None] * np.ones((STARTS, 1)))
    found, values = minimize(problem, _starts(problem, points, kept))
    best = found[int(np.argmin(values))]
    drawn = best[None]
    if draws:
        rng = stream(seed, "surface bootstrap")
        count = int(kept.sum())
        weights = np.zeros((draws, len(points)))
        weights[:, kept] = rng.dirichlet(np.ones(count), draws) * count
        drawn, _ = minimize(_Problem(points, weights), np.repeat(best[None], draws, 0), tolerance=1e-6)
        drawn = best + (drawn - best) * np.sqrt(count / (count - PARAMETERS))
    residuals = problem.residuals(best[None])[0]
    return SurfaceFit(problem.surface(best[None]), problem.surface(drawn), residuals, kept, float(values.min()))


def refit(points: Points, fit: SurfaceFit, parts: Sequence[NDArray[np.bool_]]) -> Surface:
    """The surfaces of subsets of the points that ``fit`` uses, one an entry, found from its parameters."""
    weights = np.array([part & fit.kept for part in parts], float)
    problem = _Problem(points, weights)
    start = np.repeat(problem.theta(fit.best), len(parts), 0)
    found, _ = minimize(problem, start, tolerance=1e-8)
    return problem.surface(found)


def _described(points: Points) -> NDArray[np.bool_]:
    """Which points the surface describes; see :func:`fit_surface`."""
    count = len(points)
    whole = np.ones(count, bool)
    few = max(1, count // 20)
    if count < 2 * PARAMETERS + few:
        return whole
    ratio = points.tokens / points.params
    subsets = [whole]
    for measure in (points.loss, -ratio, ratio):
        part = whole.copy()
        part[np.argsort(measure)[-few:]] = False
        subsets.append(part)
    problem = _Problem(points, np.array(subsets, float))
    theta = np.concatenate([_starts(problem, points, part)[:1] for part in subsets])
    for _ in range(3):  # concentrate on the points that agree best (Rousseeuw and Van Driessen, 1999)
        theta, _ = minimize(problem, theta, steps=60, tolerance=1e-6)
        size = np.abs(problem.residuals(theta))
        bound = np.quantile(size, 0.9, axis=1, keepdims=True)
        problem.weights = (size <= bound).astype(float)
    trimmed = (size * problem.weights).sum(1)
    size = size[int(np.argmin(trimmed))]
    spread = max(1.4826 * float(np.median(size)), DELTA / 4)
    kept: NDArray[np.bool_] = size <= FAR * spread
    return kept if (~kept).sum() <= count / 10 else whole


def _starts(problem: _Problem, points: Points, kept: NDArray[np.bool_]) -> Floats:
    """The best of a grid of exponents; E and the two terms of each by least squares without negative values."""
    alpha, beta = (part.ravel() for part in np.meshgrid(GRID, GRID))
    columns = np.stack([np.exp(-np.outer(alpha, problem.x)), np.exp(-np.outer(beta, problem.y))], 2)
    columns = np.concatenate([columns, np.ones_like(columns[..., :1])], 2) / points.loss[:, None]
    terms = np.log(np.maximum(_not_negative(columns[:, kept]), 1e-4))
    theta = np.concatenate([terms, np.stack([np.log(p / (STEEPEST - p)) for p in (alpha, beta)], 1)], 1)
    values = np.abs(problem.residuals(theta)[:, kept]).sum(1)
    return theta[np.argsort(values)[:STARTS]]


def _not_negative(columns: Floats) -> Floats:
    """Least squares of ones on the columns [K, points, 3] with coefficients of at least 0, [K, 3]."""
    count = len(columns)
    squares = np.einsum("kni,knj->kij", columns, columns)
    right = columns.sum(1)
    best, least = np.zeros((count, 3)), np.full(count, np.inf)
    for chosen in product((True, False), repeat=3):
        part = np.flatnonzero(chosen)
        if not len(part):
            continue
        inner = squares[:, part[:, None], part]
        inner = inner + 1e-12 * np.trace(inner, axis1=1, axis2=2)[:, None, None] * np.eye(len(part))
        solution = np.linalg.solve(inner, right[:, part, None])[..., 0]
        error = columns.shape[1] - (solution * right[:, part]).sum(1)
        better = (solution >= 0).all(1) & (error < least)
        least[better] = error[better]
        full = np.zeros((count, 3))
        full[:, part] = solution
        best[better] = full[better]
    return best
