"""Accuracy as a sigmoid of the likelihood of the right answer, between a floor and a ceiling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herdlm.scaling.intervals import rounded
from herdlm.scaling.minimize import minimize
from herdlm.scaling.points import Floats

STEEPNESSES = (2.0, 5.0, 12.0)  # over the range of the likelihoods, where searches begin
FOR_FLOOR, FOR_CEILING = 6, 8  # points that let them be fitted
HELD = 0.02  # the weight that keeps steepness near the range of the data where these decide nothing


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """accuracy = floor + (ceiling - floor) / (1 + exp(steepness (nll - center))); arrays of equal length."""

    floor: Floats
    ceiling: Floats
    steepness: Floats
    center: Floats

    def __call__(self, nll: Floats | float) -> Floats:
        """Accuracies at the likelihoods."""
        exponent = np.clip(self.steepness * (nll - self.center), -60, 60)
        value: Floats = self.floor + (self.ceiling - self.floor) / (1 + np.exp(exponent))
        return value

    def as_json(self) -> dict[str, Any]:
        """The first entry's parameters."""
        return {name: rounded(float(getattr(self, name)[0])) for name in ("floor", "ceiling", "steepness", "center")}


class _Problem:
    """Squared errors of accuracy, for a batch of (ln steepness, center, floor, ceiling), in the data's own scale.

    Floor and ceiling are logistic functions of their parameters within what chance and the best score leave.
    """

    def __init__(self, nll: Floats, accuracy: Floats, chance: float | None, weights: Floats) -> None:
        self.middle, self.range = float(nll.mean()), max(float(np.ptp(nll)), 1e-9)
        self.x = (nll - self.middle) / self.range
        self.y, self.weights = accuracy, weights
        many = len(nll)
        self.free_floor = chance is None and many >= FOR_FLOOR
        self.free_ceiling = many >= FOR_CEILING
        self.floor = (0.0 if chance is None else chance, max(float(accuracy.min()), 0.0))
        self.ceiling = (min(float(accuracy.max()), 1.0), 1.0)

    @property
    def parameters(self) -> int:
        return 2 + self.free_floor + self.free_ceiling

    def _ends(self, theta: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Floor and ceiling, and their derivatives by their parameters."""
        share = 1 / (1 + np.exp(-np.clip(theta[:, 2:], -40, 40)))
        slope = share * (1 - share)
        low, high = self.floor
        floor = low + (high - low) * share[:, 0] if self.free_floor else np.full(len(theta), low)
        d_floor = (high - low) * slope[:, 0] * self.free_floor
        low, high = self.ceiling
        ceiling = low + (high - low) * share[:, 1] if self.free_ceiling else np.full(len(theta), high)
        return floor, d_floor, ceiling, (high - low) * slope[:, 1] * self.free_ceiling

    def __call__(self, theta: Floats, numbers: NDArray[np.int64]) -> tuple[Floats, Floats]:
        steep, center = np.exp(np.clip(theta[:, :1], -8, 8)), theta[:, 1:2]
        floor, d_floor, ceiling, d_ceiling = (part[:, None] for part in self._ends(theta))
        part = 1 / (1 + np.exp(np.clip(steep * (self.x - center), -60, 60)))
        error = floor + (ceiling - floor) * part - self.y
        weights = self.weights[numbers]
        span = (ceiling - floor) * part * (1 - part)
        scale = 1e4 / self.weights.shape[1]
        pull = 2 * scale * weights * error
        slopes = (
            (pull * -span * steep * (self.x - center)).sum(1) + 2 * HELD * (theta[:, 0] - np.log(5)),
            (pull * span * steep).sum(1) + 2 * HELD * theta[:, 1],
            (pull * (1 - part)).sum(1) * d_floor[:, 0] + 2e-3 * theta[:, 2],
            (pull * part).sum(1) * d_ceiling[:, 0] + 2e-3 * theta[:, 3],
        )
        held = HELD * ((theta[:, 0] - np.log(5)) ** 2 + theta[:, 1] ** 2) + 1e-3 * (theta[:, 2:] ** 2).sum(1)
        return scale * (weights * error**2).sum(1) + held, np.stack(slopes, 1)

    def sigmoid(self, theta: Floats) -> Sigmoid:
        floor, _, ceiling, _ = self._ends(theta)
        steep = np.exp(np.clip(theta[:, 0], -8, 8)) / self.range
        return Sigmoid(floor, ceiling, steep, self.middle + self.range * theta[:, 1])


def fit_sigmoid(
    nll: Floats, accuracy: Floats, *, chance: float | None, draws: int, rng: np.random.Generator
) -> tuple[Sigmoid, Sigmoid, float]:
    """Fit by least squares from several starts; returns the fit, bootstrap draws, and the residuals' size.

    The floor is ``chance`` if given, else fitted with at least six points; the ceiling is 1 with fewer than eight.
    """
    starts = np.array([(np.log(s), c, 0.0, 0.0) for s in STEEPNESSES for c in (-0.5, 0.0, 0.5, 1.0)])
    problem = _Problem(nll, accuracy, chance, np.ones((len(starts), len(nll))))
    found, values = minimize(problem, starts)
    best = found[[int(np.argmin(values))]]
    fitted = problem.sigmoid(best)
    count, parameters = len(nll), problem.parameters
    freedom = max(count - parameters, 1)
    residuals = accuracy - fitted(nll)
    weights = rng.dirichlet(np.ones(count), draws) * count
    drawn, _ = minimize(_Problem(nll, accuracy, chance, weights), np.repeat(best, draws, 0), tolerance=1e-7)
    # few models say little about their scatter: Student's t in place of the normal distribution
    drawn = best + (drawn - best) * np.sqrt(count / rng.chisquare(freedom, (draws, 1)))
    return fitted, problem.sigmoid(drawn), float(np.sqrt(residuals @ residuals / freedom))
