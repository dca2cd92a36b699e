"""Minimizes many small smooth functions at once: BFGS with a weak Wolfe line search, all in one batch of arrays.

Fits of scaling laws need it a thousand times, for every start and every bootstrap draw, with three to five parameters
each. With so few there is no use in limiting the memory of the inverse Hessian. The line search is that of Lewis and
Overton (2013), which also makes progress where Huber's loss is nearly the absolute value.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Objective = Callable[[Floats, NDArray[np.int64]], tuple[Floats, Floats]]
"""(x [K, P], numbers [K] of the problems) -> values [K] and gradients [K, P]."""

ARMIJO, CURVATURE = 1e-4, 0.5


def minimize(
    objective: Objective, start: Floats, *, steps: int = 300, tolerance: float = 1e-10
) -> tuple[Floats, Floats]:
    """Minimize B problems from ``start`` [B, P]; returns the points [B, P] and their values [B].

    A problem is finished when a step lowers its value by less than ``tolerance`` of it, twice in a row.
    """
    x = start.astype(np.float64).copy()
    count, size = x.shape
    value, slope = objective(x, np.arange(count))
    inverse = np.broadcast_to(np.eye(size), (count, size, size)).copy()
    slow, fresh = np.zeros(count, int), np.ones(count, bool)
    active = np.flatnonzero(np.isfinite(value))
    for _ in range(steps):
        if not len(active):
            break
        g, h = slope[active], inverse[active]
        direction = -np.einsum("bij,bj->bi", h, g)
        uphill = np.einsum("bi,bi->b", direction, g) >= 0
        direction[uphill] = -g[uphill]
        first = fresh[active] | uphill
        longest = np.linalg.norm(direction, axis=1)
        direction[first] /= np.maximum(longest[first], 1e-300)[:, None] * 2
        length, new_value, new_slope = _line_search(
            objective, x[active], value[active], g, direction=direction, numbers=active
        )
        s = length[:, None] * direction
        moved = length > 0
        y = new_slope - g
        inverse[active] = _updated(h, s, y, first)
        fresh[active] = ~moved  # where a search failed, begin again along the gradient
        gain = value[active] - new_value
        x[active] += s
        value[active], slope[active] = new_value, new_slope
        stuck = gain <= tolerance * (np.abs(new_value) + tolerance)
        slow[active] = np.where(stuck, slow[active] + 1, 0)
        active = active[slow[active] < 2]
    return x, value


def _line_search(
    objective: Objective, x: Floats, value: Floats, slope: Floats, *, direction: Floats, numbers: NDArray[np.int64]
) -> tuple[Floats, Floats, Floats]:
    """A length for each problem that satisfies the weak Wolfe conditions, or the best that lowers its value, or 0."""
    count = len(x)
    low, high, length = np.zeros(count), np.full(count, np.inf), np.ones(count)
    best, best_value, best_slope = np.zeros(count), value.copy(), slope.copy()
    along = np.einsum("bi,bi->b", slope, direction)
    open_ = np.arange(count)
    for _ in range(30):
        t = length[open_]
        new_value, new_slope = objective(x[open_] + t[:, None] * direction[open_], numbers[open_])
        new_value = np.where(np.isfinite(new_value), new_value, np.inf)
        too_long = new_value > value[open_] + ARMIJO * t * along[open_]
        new_along = np.einsum("bi,bi->b", np.nan_to_num(new_slope), direction[open_])
        too_short = ~too_long & (new_along < CURVATURE * along[open_])
        better = open_[~too_long & (new_value < best_value[open_])]
        picked = np.isin(open_, better)
        best[better], best_value[better], best_slope[better] = t[picked], new_value[picked], new_slope[picked]
        high[open_[too_long]] = t[too_long]
        low[open_[too_short]] = t[too_short]
        open_ = open_[too_long | too_short]
        if not len(open_):
            break
        bounded = np.isfinite(high[open_])
        length[open_] = np.where(bounded, (low[open_] + np.where(bounded, high[open_], 0)) / 2, 2 * length[open_])
    return best, best_value, best_slope


def _updated(inverse: Floats, s: Floats, y: Floats, first: NDArray[np.bool_]) -> Floats:
    """The inverse Hessians after steps ``s`` that changed the gradients by ``y``; unchanged without curvature."""
    sy, yy = np.einsum("bi,bi->b", s, y), np.einsum("bi,bi->b", y, y)
    curved = sy > 1e-14 * np.sqrt(yy * np.einsum("bi,bi->b", s, s))
    eye = np.eye(s.shape[1])
    scaled = np.where(curved & (yy > 0), sy / np.where(yy > 0, yy, 1), 1.0)
    inverse = np.where(first[:, None, None], scaled[:, None, None] * eye, inverse)
    rho = np.where(curved, 1 / np.where(curved, sy, 1), 0.0)
    left = eye - rho[:, None, None] * s[:, :, None] * y[:, None, :]
    updated = np.einsum("bij,bjk,blk->bil", left, inverse, left) + rho[:, None, None] * s[:, :, None] * s[:, None, :]
    return np.where(curved[:, None, None], updated, inverse)
