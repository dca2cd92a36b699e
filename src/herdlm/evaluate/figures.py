"""From records of items to figures with 95% intervals, and comparisons of models on the same items."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herdlm.evaluate.intervals import Z95, Estimate, paired_difference, pass_rate

FEW = 10  # right or wrong answers; below, the normal approximation of a rate fails
RESAMPLES = 1000
LOWER_IS_BETTER = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")


def metric_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics of a task's records, in the task's order."""
    return list(
        dict.fromkeys(name for record in records for part in ("values", "ratios") for name in record.get(part, ()))
    )


def lower_is_better(metric: str) -> bool:
    """Whether a lower value of a metric is better."""
    return metric in LOWER_IS_BETTER or metric.endswith("_refused_safe")


def figure(records: Sequence[Mapping[str, Any]], metric: str, *, seed: int = 0) -> Estimate | None:
    """A metric over items, with its interval; None if no record has it.

    A rate has the normal interval of the Llama 3 report (section 5.1.1), or Wilson's where right or wrong answers are
    few; other means the normal one. Where items share a cluster or have several values, and for ratios such as
    perplexity, clusters are resampled (the percentile bootstrap).
    """
    rows = [record for record in records if metric in record.get("values", ()) or metric in record.get("ratios", ())]
    if not rows:
        return None
    if metric in rows[0].get("ratios", ()):
        sums = np.array([record["ratios"][metric] for record in rows], dtype=np.float64)
        return _resampled(sums, clusters_of(rows), metric.endswith("perplexity"), seed)
    values = [record["values"][metric] for record in rows]
    clustered = any(record.get("cluster") is not None for record in rows)
    if clustered or any(isinstance(value, list) for value in values):
        lists = [value if isinstance(value, list) else [value] for value in values]
        sums = np.array([[sum(each), len(each)] for each in lists], dtype=np.float64)
        return _resampled(sums, clusters_of(rows), False, seed)
    return _mean(np.array(values, dtype=np.float64))


def difference(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], metric: str, *, seed: int = 0
) -> Estimate | None:
    """The difference ``after - before`` of a metric over the items that both have, with its paired interval."""
    common = {record["id"]: record for record in before}
    pairs = [(common[record["id"]], record) for record in after if record["id"] in common]
    values = [
        (first["values"][metric], second["values"][metric])
        for first, second in pairs
        if metric in first.get("values", ()) and metric in second.get("values", ())
    ]
    if not values:
        return _ratio_difference(pairs, metric, seed)
    flat = [(float(np.mean(first)), float(np.mean(second))) for first, second in values]
    if all(value in (0.0, 1.0) for pair in flat for value in pair):
        return paired_difference([bool(first) for first, _ in flat], [bool(second) for _, second in flat])
    changes = np.array([second - first for first, second in flat])
    return _mean(changes, bounded=False)


def _ratio_difference(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], metric: str, seed: int
) -> Estimate | None:
    both = [
        (first["ratios"][metric], second["ratios"][metric])
        for first, second in pairs
        if metric in first.get("ratios", ()) and metric in second.get("ratios", ())
    ]
    if not both:
        return None
    sums = np.array(both, dtype=np.float64)  # [N, 2, 2]
    power = metric.endswith("perplexity")

    def change(part: NDArray[np.float64]) -> float:
        ratios = part[:, :, 0].sum(0) / part[:, :, 1].sum(0)
        ratios = np.exp(ratios) if power else ratios
        return float(ratios[1] - ratios[0])

    rng = np.random.default_rng(seed)
    draws = [change(sums[rng.integers(0, len(sums), len(sums))]) for _ in range(RESAMPLES)]
    value = change(sums)
    return Estimate(value, *_percentiles(draws, value))


def _mean(values: NDArray[np.float64], *, bounded: bool = True) -> Estimate:
    if bounded and np.isin(values, (0.0, 1.0)).all():
        right = int(values.sum())
        if min(right, len(values) - right) < FEW:
            return pass_rate(values.astype(bool).tolist())
        rate = right / len(values)
        half = Z95 * math.sqrt(rate * (1 - rate) / len(values))
        return Estimate(rate, rate - half, rate + half)
    mean = float(values.mean())
    half = Z95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Estimate(mean, mean - half, mean + half)


def clusters_of(rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The places of the records that are resampled together."""
    found: dict[Any, list[int]] = defaultdict(list)
    for index, record in enumerate(rows):
        cluster = record.get("cluster")
        found[index if cluster is None else f"cluster {cluster}"].append(index)
    return list(found.values())


def _resampled(sums: NDArray[np.float64], clusters: Sequence[Sequence[int]], power: bool, seed: int) -> Estimate:
    """A ratio of sums [N, 2], exponentiated if ``power``."""
    grouped = np.array([sums[list(cluster)].sum(0) for cluster in clusters])
    rng = np.random.default_rng(seed)
    drawn = grouped[rng.integers(0, len(grouped), (RESAMPLES, len(grouped)))].sum(1)

    def ratio(pair: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = pair[..., 0] / pair[..., 1]
        return np.exp(values) if power else values

    value = float(ratio(grouped.sum(0)))
    return Estimate(value, *_percentiles(ratio(drawn), value))


def _percentiles(draws: Sequence[float] | NDArray[np.float64], value: float) -> tuple[float, float]:
    low, high = np.quantile(draws, (0.025, 0.975))
    return min(float(low), value), max(float(high), value)
