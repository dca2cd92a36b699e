"""The share of held-out prompts that a model answers rightly, before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.align.grpo.sampler import Prompt, Sampler
from herdlm.align.job import Model
from herdlm.align.result import estimate_json, shown
from herdlm.evaluate.intervals import Z95, Estimate, paired_difference, pass_rate


@dataclass(frozen=True, slots=True)
class Answered:
    """Greedy answers to held-out prompts: which are right, their scores, and their lengths in tokens."""

    right: list[bool]
    scores: list[float]
    tokens: list[int]
    cut: list[bool]


def answer_greedily(sampler: Sampler, model: Model, prompts: Sequence[Prompt], max_tokens: int) -> Answered:
    """Answer each prompt with the likeliest tokens. Every process calls this."""
    drawn = [
        one
        for (one,) in sampler.draw(
            model, prompts, [0] * len(prompts), samples=1, temperature=0.0, max_tokens=max_tokens
        )
    ]
    return Answered(
        [one.verdict.passed for one in drawn],
        [one.verdict.score for one in drawn],
        [len(one.tokens) for one in drawn],
        [one.cut for one in drawn],
    )


def summary(before: Answered, after: Answered) -> dict[str, Any]:
    """Figures with 95% intervals, for the manifest."""
    return {
        "prompts": len(after.right),
        "right_before": estimate_json(pass_rate(before.right)),
        "right": estimate_json(pass_rate(after.right)),
        "right_change": estimate_json(paired_difference(before.right, after.right)),
        "score_before": estimate_json(mean_of(before.scores)),
        "score": estimate_json(mean_of(after.scores)),
        "answer_tokens_before": round(mean_of(before.tokens).value, 2),
        "answer_tokens": round(mean_of(after.tokens).value, 2),
        "cut_before": sum(before.cut),
        "cut": sum(after.cut),
    }


def line(before: Answered, after: Answered) -> str:
    """The figures in words."""
    change = paired_difference(before.right, after.right)
    tokens = [mean_of(each.tokens).value for each in (before, after)]
    return (
        f"Held-out prompts answered rightly: {pass_rate(before.right).value:.1%} before, "
        f"{shown(pass_rate(after.right), '.1%')} after, change {shown(change, '+.1%')} of {len(after.right):,}; "
        f"answers of {tokens[0]:.0f} tokens before, {tokens[1]:.0f} after"
    )


def mean_of(values: Sequence[float]) -> Estimate:
    """The mean of values with its normal 95% interval."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return Estimate(mean, -math.inf, math.inf)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    return Estimate(mean, mean - Z95 * spread, mean + Z95 * spread)
