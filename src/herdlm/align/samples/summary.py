"""What verdicts, rewards and a judge's marks on samples come to, in all, by task and by model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from herdlm.align.samples.rows import Sample, SampledRow
from herdlm.evaluate.intervals import Z95, Estimate, pass_rate
from herdlm.evaluate.judging import pass_at_k

Value = Callable[[Sample], float | None]


def passed(sample: Sample) -> float | None:
    """1 or 0 for an answer with a verdict."""
    return float(sample["verdict"]["passed"]) if "verdict" in sample else None


def rewarded(sample: Sample) -> float | None:
    """The reward of an answer."""
    return sample.get("reward")


def marked(sample: Sample) -> float | None:
    """The share of the points that an answer got."""
    return sample["judge"]["score"] / sample["judge"]["best"] if "judge" in sample else None


def summarize(rows: Sequence[SampledRow]) -> dict[str, Any]:
    """Counts, and the means of what was judged: ``pass_rate``, ``any_of``, ``reward`` and ``judge``, with intervals."""
    found: dict[str, Any] = {"prompts": len(rows), "samples": sum(len(row["samples"]) for row in rows)}
    for name, value in (("pass_rate", passed), ("reward", rewarded), ("judge", marked)):
        if (overall := _part(rows, value)) is not None:
            found[name] = {**overall, "by_task": _by_task(rows, value), "by_model": _by_model(rows, value)}
    if "pass_rate" in found:
        found["any_of"] = any_of(rows)
    return found


def any_of(rows: Sequence[SampledRow]) -> dict[str, dict[str, float | None]]:
    """The share of prompts of which one of k answers passes, for powers of two up to the fewest answers of a prompt."""
    judged = [values for row in rows if (values := [v for s in row["samples"] if (v := passed(s)) is not None])]
    fewest = min(map(len, judged))
    sizes = sorted({2**power for power in range(fewest.bit_length())} | {fewest})
    made = {}
    for k in sizes:
        chances = [pass_at_k(len(values), round(sum(values)), k) for values in judged]
        made[str(k)] = _mean([[chance] for chance in chances], share=True).to_json()
    return made


def _by_task(rows: Sequence[SampledRow], value: Value) -> dict[str, Any]:
    made = {}
    for task in sorted({row.get("task", "") for row in rows}):
        if part := _part([row for row in rows if row.get("task", "") == task], value):
            made[task] = part
    return made


def _by_model(rows: Sequence[SampledRow], value: Value) -> dict[str, Any]:
    made = {}
    for model in sorted({sample["model"] for row in rows for sample in row["samples"]}):
        own = [{**row, "samples": [s for s in row["samples"] if s["model"] == model]} for row in rows]
        if part := _part(cast(Sequence[SampledRow], own), value):
            made[model] = part
    return made


def _part(rows: Sequence[SampledRow], value: Value) -> dict[str, Any] | None:
    by_prompt = [values for row in rows if (values := [v for s in row["samples"] if (v := value(s)) is not None])]
    if not by_prompt:
        return None
    estimate = _mean(by_prompt, share=value is not rewarded and all(0 <= v <= 1 for own in by_prompt for v in own))
    return {"prompts": len(by_prompt), "samples": sum(map(len, by_prompt)), **estimate.to_json()}


def _mean(by_prompt: Sequence[Sequence[float]], *, share: bool) -> Estimate:
    """The mean over samples; its interval takes the answers to one prompt as one draw (a ratio of sums by prompt)."""
    n, size = len(by_prompt), sum(map(len, by_prompt))
    mean = sum(map(sum, by_prompt)) / size
    if all(len(own) == 1 and own[0] in (0.0, 1.0) for own in by_prompt):
        return pass_rate([own[0] == 1 for own in by_prompt])
    residuals = [sum(own) - mean * len(own) for own in by_prompt]
    spread = math.sqrt(sum(r * r for r in residuals) * n / max(n - 1, 1)) / size if n > 1 else math.nan
    if share and not spread > 0:  # all alike, or one prompt: as wide as for so many prompts
        whole = pass_rate([True] * n)
        half = 1 - whole.low
        return Estimate(mean, max(mean - half, 0.0), min(mean + half, 1.0))
    low, high = mean - Z95 * spread, mean + Z95 * spread
    return Estimate(mean, max(low, 0.0), min(high, 1.0)) if share else Estimate(mean, low, high)
