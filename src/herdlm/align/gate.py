"""Decides whether a round's model takes the place of the best one so far.

Candidates and incumbent answer the same held-out prompts. A candidate passes if its mean pass rate over tasks rises by
more than ``min_gain``, no task's rate falls by more than ``max_drop`` beyond chance, and no standard task gets worse by
more than ``max_task_drop``. A fall is beyond chance if the 95% interval of the paired difference lies below 0: of many
tasks with few prompts each, one falls in any case. Of those that pass, the one with the highest mean is chosen. The
prompts that decide here are not those of the final examination, since choosing the best of several overstates it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from herdlm.align.config import GateConfig
from herdlm.evaluate.figures import lower_is_better
from herdlm.evaluate.intervals import Z95, Estimate, paired_difference


@dataclass(frozen=True, slots=True)
class Measured:
    """A model at the gate: by task, whether each answer is right; and figures of standard tasks, "TASK METRIC"."""

    right: Mapping[str, list[bool]]
    figures: Mapping[str, float]

    @property
    def score(self) -> float:
        """The mean over tasks of their pass rates."""
        return float(np.mean([np.mean(answers) for answers in self.right.values()]))


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What the gate decided.

    Attributes:
        chosen: the candidate that is promoted; None if the incumbent stays.
        gain: of the best candidate over the incumbent, with its paired 95% interval.
        refused: why each candidate that does not pass was refused.
        scores: mean pass rate over tasks, by model; tasks: pass rates by model and task; figures: standard tasks.
    """

    chosen: str | None
    reason: str
    gain: Estimate
    refused: dict[str, list[str]]
    scores: dict[str, float]
    tasks: dict[str, dict[str, float]]
    figures: dict[str, dict[str, float]]


def choose(
    incumbent: Measured,
    candidates: Mapping[str, Measured],
    config: GateConfig,
    *,
    start: Mapping[str, float] | None = None,
) -> GateVerdict:
    """Choose the best candidate that passes the gate, or none.

    Args:
        start: figures of standard tasks that must not get worse, so that small losses do not add up over rounds; by
            default the incumbent's.
    """
    first = incumbent.figures if start is None else start
    problems = {name: _problems(incumbent, measured, first, config) for name, measured in candidates.items()}
    passing = [name for name, found in problems.items() if not found]
    best = max(passing or candidates, key=lambda name: candidates[name].score)
    gain = _gain(incumbent, candidates[best])
    shown = f"{best}: {100 * gain.value:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
    reason = f"promoted, {shown}" if passing else f"refused, {shown}; {'; '.join(problems[best])}"
    models = {"incumbent": incumbent, **candidates}
    return GateVerdict(
        best if passing else None,
        reason,
        gain,
        {name: found for name, found in problems.items() if found},
        {name: round(measured.score, 6) for name, measured in models.items()},
        {name: {t: round(float(np.mean(a)), 6) for t, a in m.right.items()} for name, m in models.items()},
        {name: dict(measured.figures) for name, measured in models.items()},
    )


def _problems(incumbent: Measured, candidate: Measured, start: Mapping[str, float], config: GateConfig) -> list[str]:
    """Why a candidate does not pass."""
    found = []
    if candidate.score - incumbent.score <= config.min_gain:
        found.append(f"its mean pass rate does not rise by more than {config.min_gain:.3f}")
    for task, answers in candidate.right.items():
        change = paired_difference(incumbent.right[task], answers)
        if change.value < -config.max_drop and change.high < 0:
            found.append(f"{task or 'the prompts'} falls by {-100 * change.value:.1f} points")
    for name, value in candidate.figures.items():
        sign = -1.0 if lower_is_better(name.split()[-1]) else 1.0
        worse = sign * (start[name] - value)
        if worse > config.max_task_drop:
            found.append(f"{name} gets worse by {worse:.3f}")
    return found


def _gain(incumbent: Measured, candidate: Measured) -> Estimate:
    """The difference of the mean over tasks, with the normal interval of paired differences within each task."""
    differences = [
        np.array(candidate.right[task], dtype=float) - np.array(incumbent.right[task], dtype=float)
        for task in candidate.right
    ]
    value = float(np.mean([each.mean() for each in differences]))
    variance = sum(each.var(ddof=1) / len(each) for each in differences if len(each) > 1) / len(differences) ** 2
    half = Z95 * float(np.sqrt(variance))
    return Estimate(value, value - half, value + half)
