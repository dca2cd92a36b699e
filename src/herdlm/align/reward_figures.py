"""How well scores rank held-out pairs: accuracy by grade, calibration, and what length has to do with it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from herdlm.align.result import estimate_json, shown
from herdlm.evaluate.intervals import Estimate, pass_rate
from herdlm.tokens.preferences import Preference, PreferenceBatches

BINS = 10


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A pair's scores, its answers' lengths in tokens, and its grade ("" for none)."""

    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int
    grade: str = ""

    @property
    def margin(self) -> float:
        """The chosen answer's score minus the rejected one's."""
        return self.chosen - self.rejected

    @property
    def longer(self) -> int:
        """By how many tokens the chosen answer is longer."""
        return self.chosen_tokens - self.rejected_tokens


def scored(
    pairs: Sequence[Preference], batches: PreferenceBatches, scores: Sequence[tuple[float, float]]
) -> list[ScoredPair]:
    """The pairs of ``batches`` with their scores."""
    lengths = [int((piece.weights > 0).sum()) for piece in batches.pieces]
    return [
        ScoredPair(*both, lengths[2 * number], lengths[2 * number + 1], pair.get("rating", ""))
        for number, (pair, both) in enumerate(zip(pairs, scores, strict=True))
    ]


def reward_figures(pairs: Sequence[ScoredPair]) -> dict[str, Any]:
    """All figures as JSON.

    The accuracy counts equal scores as wrong. ``calibration`` compares the probability that the scores give to the
    likelier answer, sigmoid of the difference, with how often it is the chosen one, in ten bins from 0.5 to 1;
    ``ece`` is the mean distance. ``length`` has the correlation of the margin with the difference of lengths, and the
    accuracy by which answer is longer.
    """
    grades: dict[str, list[ScoredPair]] = defaultdict(list)
    for pair in pairs:
        grades[pair.grade].append(pair)
    found: dict[str, Any] = {"pairs": len(pairs), "accuracy": estimate_json(accuracy(pairs))}
    if set(grades) != {""}:
        found["accuracy_by_grade"] = {
            name or "no grade": {"pairs": len(some), **estimate_json(accuracy(some))}
            for name, some in sorted(grades.items())
        }
    return found | {"calibration": calibration(pairs), "length": length_bias(pairs)}


def accuracy(pairs: Sequence[ScoredPair]) -> Estimate:
    """The share of pairs whose chosen answer scores higher."""
    return pass_rate([pair.margin > 0 for pair in pairs])


def calibration(pairs: Sequence[ScoredPair]) -> dict[str, Any]:
    """The expected calibration error, and the bins with pairs in them."""
    confidence = np.array([1 / (1 + math.exp(-min(abs(pair.margin), 700.0))) for pair in pairs])
    right = np.array([pair.margin > 0 for pair in pairs], dtype=np.float64)
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    found, error = [], 0.0
    for number in range(BINS):
        here = bins == number
        if not here.any():
            continue
        said, was = float(confidence[here].mean()), float(right[here].mean())
        error += abs(said - was) * int(here.sum()) / len(pairs)
        found.append({"pairs": int(here.sum()), "confidence": round(said, 4), "accuracy": round(was, 4)})
    return {"ece": round(error, 6), "bins": found}


def length_bias(pairs: Sequence[ScoredPair]) -> dict[str, Any]:
    """Correlation of margins with differences of lengths (None where either does not vary), and accuracy by length."""
    margins, longer = np.array([p.margin for p in pairs]), np.array([float(p.longer) for p in pairs])
    varies = len(pairs) > 1 and margins.std() > 0 and longer.std() > 0
    found: dict[str, Any] = {"correlation": round(float(np.corrcoef(margins, longer)[0, 1]), 4) if varies else None}
    groups = {
        "chosen_longer": [p for p in pairs if p.longer > 0],
        "chosen_shorter": [p for p in pairs if p.longer < 0],
        "equal_length": [p for p in pairs if p.longer == 0],
    }
    return found | {n: {"pairs": len(some), **estimate_json(accuracy(some))} for n, some in groups.items() if some}


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures in words."""
    shown_lines = [f"Accuracy on {figures['pairs']:,} pairs: {_shown(figures['accuracy'])}"]
    shown_lines += [
        f"  {name}: {_shown(each)} ({each['pairs']:,} pairs)"
        for name, each in figures.get("accuracy_by_grade", {}).items()
    ]
    shown_lines.append(f"Calibration error: {figures['calibration']['ece']:.3f}")
    length = figures["length"]
    parts = [
        f"{_shown(length[name])} where {title} ({length[name]['pairs']:,})"
        for name, title in (
            ("chosen_longer", "the chosen answer is longer"),
            ("chosen_shorter", "it is shorter"),
            ("equal_length", "both are equally long"),
        )
        if name in length
    ]
    correlation = length["correlation"]
    shown_lines.append(
        f"Length: correlation of score and length {'unknown' if correlation is None else format(correlation, '+.2f')}; "
        f"accuracy {', '.join(parts)}"
    )
    return shown_lines


def _shown(entry: dict[str, Any]) -> str:
    return shown(Estimate(entry["value"], entry["low"], entry["high"]))
