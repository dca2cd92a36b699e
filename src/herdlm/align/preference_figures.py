"""What preference optimization did to held-out pairs and thumbs: which answer is likelier, and how far both moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from herdlm.align.dpo import answer_sums
from herdlm.align.job import Model
from herdlm.align.result import estimate_json, shown
from herdlm.evaluate.intervals import Z95, Estimate, paired_difference, pass_rate
from herdlm.tokens.preferences import PreferenceBatches
from herdlm.tokens.thumbs import ThumbBatches

PER_TOKEN = ("norm", "simpo")  # losses whose implicit reward is a mean per token


@dataclass(frozen=True, slots=True)
class Answers:
    """Log-probabilities and lengths of answers, by the column of their document in a batch."""

    sums: dict[str, list[float]]
    lengths: dict[str, list[float]]


def measure(model: Model, batches: PreferenceBatches | ThumbBatches, precision: str) -> Answers:
    """The answers of all pairs or thumbs under ``model``. Every process of a laid-out model calls this."""
    names = ("chosen", "rejected") if isinstance(batches, PreferenceBatches) else ("answer",)
    found = Answers({name: [] for name in names}, {name: [] for name in names})
    for numbers in batches.split(range(len(batches.items))):
        batch = batches.batch(numbers)
        sums, lengths = answer_sums(model, batch, precision)
        for name in names:
            found.sums[name] += sums[batch.columns[name]].tolist()
            found.lengths[name] += lengths[batch.columns[name]].clamp(min=1).tolist()
    return found


def pair_figures(before: Answers, after: Answers, loss: str) -> tuple[dict[str, Any], dict[str, Estimate]]:
    """Figures of pairs as JSON, and those that a promotion may compare.

    ``implicit_reward_accuracy``: the share of pairs whose chosen answer gained more log-probability (per token with a
    loss per token) than the rejected one. ``logprob_accuracy``: the share whose chosen answer is likelier as a whole.
    Drifts are mean changes of log-probability per token.
    """
    gains = {side: _gains(before, after, side, per_token=loss in PER_TOKEN) for side in ("chosen", "rejected")}
    implicit = pass_rate([c > r for c, r in zip(gains["chosen"], gains["rejected"], strict=True)])
    was, now = _likelier(before), _likelier(after)
    summary = {
        "pairs": len(now),
        "implicit_reward_accuracy": estimate_json(implicit),
        "logprob_accuracy_before": estimate_json(pass_rate(was)),
        "logprob_accuracy": estimate_json(pass_rate(now)),
        "logprob_accuracy_change": estimate_json(paired_difference(was, now)),
    }
    for side in gains:
        summary[f"{side}_drift_per_token"] = round(fmean(_gains(before, after, side, per_token=True)), 6)
    return summary, {"implicit_reward_accuracy": implicit, "logprob_accuracy": pass_rate(now)}


def thumb_figures(
    before: Answers, after: Answers, labels: Sequence[bool]
) -> tuple[dict[str, Any], dict[str, Estimate]]:
    """Figures of thumbs as JSON, and those that a promotion may compare.

    ``implicit_reward_auc``: how probably an answer with a thumb up gained more log-probability than one with a thumb
    down; None where all thumbs are alike. Drifts are mean changes of log-probability per token, by label.
    """
    gains, drifts = (_gains(before, after, "answer", per_token=each) for each in (False, True))
    up, down = ([g for g, label in zip(gains, labels, strict=True) if label is kind] for kind in (True, False))
    summary: dict[str, Any] = {"thumbs": len(gains), "thumbs_up": len(up), "implicit_reward_auc": None}
    figures: dict[str, Estimate] = {}
    if up and down:
        figures["implicit_reward_auc"] = auc(up, down)
        summary["implicit_reward_auc"] = estimate_json(figures["implicit_reward_auc"])
    for name, kind in (("desirable", True), ("undesirable", False)):
        some = [d for d, label in zip(drifts, labels, strict=True) if label is kind]
        summary[f"{name}_drift_per_token"] = round(fmean(some), 6) if some else None
    return summary, figures


def auc(up: Sequence[float], down: Sequence[float]) -> Estimate:
    """The probability that a value of ``up`` exceeds one of ``down`` (ties count half), with DeLong's 95% interval."""
    wins = np.sign(np.subtract.outer(np.asarray(up), np.asarray(down))) / 2 + 0.5
    value = float(wins.mean())
    variance = sum(float(each.var(ddof=1)) / len(each) for each in (wins.mean(1), wins.mean(0)) if len(each) > 1)
    half = Z95 * variance**0.5
    return Estimate(value, max(value - half, 0.0), min(value + half, 1.0))


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures in words."""
    if "pairs" in figures:
        before, after = figures["logprob_accuracy_before"], figures["logprob_accuracy"]
        return [
            f"Held-out pairs: {figures['pairs']:,}; implicit reward prefers the chosen answer in "
            f"{_shown(figures['implicit_reward_accuracy'])}",
            f"Likelier as a whole: {_shown(before)} before, {_shown(after)} after, change "
            f"{_shown(figures['logprob_accuracy_change'], '+.3f')}",
            f"Drift, nats per token: chosen {figures['chosen_drift_per_token']:+.3f}, rejected "
            f"{figures['rejected_drift_per_token']:+.3f}",
        ]
    drifts = (figures["desirable_drift_per_token"], figures["undesirable_drift_per_token"])
    up, down = ("none" if drift is None else f"{drift:+.3f}" for drift in drifts)
    found = figures["implicit_reward_auc"]
    return [
        f"Held-out thumbs: {figures['thumbs']:,}, {figures['thumbs_up']:,} up; implicit reward tells them apart with "
        f"AUC {'unknown' if found is None else _shown(found)}",
        f"Drift, nats per token: thumbs up {up}, thumbs down {down}",
    ]


def _shown(entry: dict[str, float], form: str = ".3f") -> str:
    return shown(Estimate(**entry), form)


def _gains(before: Answers, after: Answers, side: str, *, per_token: bool) -> list[float]:
    found = zip(after.sums[side], before.sums[side], after.lengths[side], strict=True)
    return [(now - was) / (length if per_token else 1.0) for now, was, length in found]


def _likelier(answers: Answers) -> list[bool]:
    return [c > r for c, r in zip(answers.sums["chosen"], answers.sums["rejected"], strict=True)]
