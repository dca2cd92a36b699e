"""How well scores tell unsafe from safe: precision, recall, F1, area under the curve, and what each threshold gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herdlm.evaluate.intervals import Estimate, pass_rate

RESAMPLES = 1000
FEW_ROWS = 5  # of a group of which figures are reported


@dataclass(frozen=True, slots=True)
class Point:
    """What a threshold gives.

    Attributes:
        false_positive_rate: share of the safe turns that are flagged.
    """

    threshold: float
    precision: float | None
    recall: float
    false_positive_rate: float
    f1: float


def figures(scores: Sequence[float], unsafe: Sequence[bool], threshold: float, *, seed: int = 0) -> dict[str, Estimate]:
    """Figures of scores at a threshold, with 95% intervals.

    Rates have Wilson's; F1 and the area, which are none, the percentile bootstrap over turns. A figure that is not
    defined is left out: recall without an unsafe turn, precision where nothing is flagged.
    """
    s, y = np.array(scores, dtype=np.float64), np.array(unsafe, dtype=bool)
    flagged = s >= threshold
    found: dict[str, Estimate] = {}
    for name, of, hits in (
        ("precision", flagged, y),
        ("recall", y, flagged),
        ("false_positive_rate", ~y, flagged),
        ("accuracy", np.ones_like(y), flagged == y),
    ):
        if of.any():
            found[name] = pass_rate(hits[of].tolist())
    if y.any() and not y.all():
        found["f1"] = _resampled(s, y, lambda s, y: _f1(s >= threshold, y), seed)
        found["auc"] = _resampled(s, y, area, seed)
    return found


def area(scores: NDArray[np.float64], unsafe: NDArray[np.bool_]) -> float:
    """The area under the ROC curve: the chance that an unsafe turn scores above a safe one, ties counting half."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    positive, n = int(unsafe.sum()), len(unsafe)
    return float((ranks[unsafe].sum() - positive * (positive + 1) / 2) / (positive * (n - positive)))


def curve(scores: Sequence[float], unsafe: Sequence[bool]) -> list[Point]:
    """What each threshold gives that changes anything: the distinct scores, descending."""
    s, y = np.array(scores, dtype=np.float64), np.array(unsafe, dtype=bool)
    return [point(s, y, threshold) for threshold in np.unique(s[s > 0])[::-1].tolist()]


def point(scores: NDArray[np.float64], unsafe: NDArray[np.bool_], threshold: float) -> Point:
    """What one threshold gives."""
    flagged = scores >= threshold
    right, count = int((flagged & unsafe).sum()), int(flagged.sum())
    recall = right / max(int(unsafe.sum()), 1)
    false = (count - right) / max(int((~unsafe).sum()), 1)
    return Point(threshold, right / count if count else None, recall, false, _f1(flagged, unsafe))


def best(points: Sequence[Point], most_false_positives: float | None = None) -> Point | None:
    """The point with the highest F1, or with the highest recall among those that flag few safe turns.

    None if every point flags more of them.
    """
    if most_false_positives is None:
        return max(points, key=lambda each: each.f1, default=None)
    allowed = [each for each in points if each.false_positive_rate <= most_false_positives]
    return max(allowed, key=lambda each: (each.recall, -each.false_positive_rate), default=None)


def curve_json(points: Sequence[Point], most: int = 200) -> list[dict[str, Any]]:
    """A curve as JSON, thinned out to at most so many points."""
    step = math.ceil(len(points) / most) if points else 1
    kept = [each for place, each in enumerate(points) if place % step == 0 or place == len(points) - 1]
    return [asdict(each) for each in kept]


def _f1(flagged: NDArray[np.bool_], unsafe: NDArray[np.bool_]) -> float:
    return 2 * int((flagged & unsafe).sum()) / max(int(flagged.sum()) + int(unsafe.sum()), 1)


def _resampled(scores: NDArray[np.float64], unsafe: NDArray[np.bool_], measure: Any, seed: int) -> Estimate:
    rng, value = np.random.default_rng(seed), float(measure(scores, unsafe))
    draws = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, len(scores), len(scores))
        if unsafe[chosen].any() and not unsafe[chosen].all():
            draws.append(measure(scores[chosen], unsafe[chosen]))
    low, high = np.quantile(draws, (0.025, 0.975))
    return Estimate(value, min(float(low), value), max(float(high), value))
