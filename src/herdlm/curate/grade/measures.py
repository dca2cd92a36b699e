"""Metrics of scores and classes on texts that nothing was fitted to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10
WORST = 10  # in the list of mistakes

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def auc(scores: Floats, is_good: Bools) -> float | None:
    """Return the probability that a good text scores above another (ties count half), or None if a kind is missing."""
    good, bad = int(is_good.sum()), int((~is_good).sum())
    if not good or not bad:
        return None
    _, ties, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[ties]  # from 1; tied scores get their mean rank
    return float((ranks[is_good].sum() - good * (good + 1) / 2) / (good * bad))


def reliability(scores: Floats, is_good: Bools) -> list[dict[str, Any]]:
    """Return the number of texts, their mean score, and the share that is good, for each tenth of the scores' range."""
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    rows = []
    for number in range(BINS):
        inside = bins == number
        if inside.any():
            rows.append(
                {
                    "from": number / BINS,
                    "to": (number + 1) / BINS,
                    "texts": int(inside.sum()),
                    "mean_score": round(float(scores[inside].mean()), 4),
                    "good_share": round(float(is_good[inside].mean()), 4),
                }
            )
    return rows


def measure(scores: Floats, is_good: Bools, at: float) -> dict[str, Any]:
    """Return counts, precision and recall of keeping scores of at least ``at``, AUC, Brier score and calibration error.

    The calibration error is the mean distance of score and share of good texts over tenths of the range, weighted by
    texts (Naeini et al. 2015). Undefined values, such as the precision of keeping nothing, are None.
    """
    kept = scores >= at
    right = int((kept & is_good).sum())
    table = reliability(scores, is_good)
    error = sum(row["texts"] * abs(row["mean_score"] - row["good_share"]) for row in table) / max(len(scores), 1)
    return {
        "texts": len(scores),
        "good": int(is_good.sum()),
        "kept": int(kept.sum()),
        "precision": _ratio(right, int(kept.sum())),
        "recall": _ratio(right, int(is_good.sum())),
        "auc": None if (area := auc(scores, is_good)) is None else round(area, 4),
        "brier": round(float(np.mean((scores - is_good) ** 2)), 4) if len(scores) else None,
        "calibration_error": round(error, 4),
    }


def measure_classes(found: Sequence[str], true: Sequence[str]) -> dict[str, Any]:
    """Return the accuracy and, by class, the number of texts, precision and recall."""
    pairs = Counter(zip(true, found, strict=True))
    classes = {}
    for name in sorted(set(true) | set(found)):
        right = pairs[name, name]
        classes[name] = {
            "texts": sum(n for (is_, _), n in pairs.items() if is_ == name),
            "precision": _ratio(right, sum(n for (_, said), n in pairs.items() if said == name)),
            "recall": _ratio(right, sum(n for (is_, _), n in pairs.items() if is_ == name)),
        }
    return {
        "texts": len(true),
        "accuracy": _ratio(sum(n for (is_, said), n in pairs.items() if is_ == said), len(true)),
        "classes": classes,
        "mistakes": [{"is": is_, "said": said, "texts": n} for (is_, said), n in pairs.most_common() if is_ != said][
            :WORST
        ],
    }


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
