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
LOSSES = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")
LOWER_IS_BETTER = (*LOSSES, "false_refusal_rate", "violation_rate")


def metric_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics of a task's records, in the task's order."""
    return list(
        dict.fromkeys(name for record in records for part in ("values", "ratios") for name in record.get(part, ()))
    )


def is_rate(metric: str) -> bool:
    """Whether a metric is a share, which tables show in percent."""
    return metric not in LOSSES


def lower_is_better(metric: str) -> bool:
    """Whether a lower value of a metric is better."""
    return metric in LOWER_IS_BETTER


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
        return _resampled(sums, clusters_of(rows), metric, seed)
    values = [record["values"][metric] for record in rows]
    clustered = any(record.get("cluster") is not None for record in rows)
    if clustered or any(isinstance(value, list) for value in values):
        sums = np.array([_sums(value, "values") for value in values], dtype=np.float64)
        return _resampled(sums, clusters_of(rows), metric, seed)
    return _mean(np.array(values, dtype=np.float64))


def difference(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], metric: str, *, seed: int = 0
) -> Estimate | None:
    """The difference ``after - before`` of a metric over the items that both have, with its paired interval.

    Clusters, several values of an item and ratios are treated as in :func:`figure`: whole clusters are resampled, with
    both models' values.
    """
    for part in ("values", "ratios"):
        if pairs := pairs_with(before, after, metric, part):
            return _paired(pairs, metric, part, seed)
    return None


def pairs_with(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], metric: str, *parts: str
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The records of items for which both models have a metric, in ``parts`` of a record."""
    common = {record["id"]: record for record in before}
    pairs = [(common[record["id"]], record) for record in after if record["id"] in common]
    return [pair for pair in pairs if all(any(metric in each.get(part, ()) for part in parts) for each in pair)]


def _paired(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], metric: str, part: str, seed: int
) -> Estimate:
    values = [[record[part][metric] for record in pair] for pair in pairs]
    clustered = any(record.get("cluster") is not None for record, _ in pairs)
    several = any(isinstance(value, list) for pair in values for value in pair)
    if part == "values" and not clustered and not several:
        if all(value in (0.0, 1.0) for pair in values for value in pair):
            return paired_difference([bool(first) for first, _ in values], [bool(second) for _, second in values])
        return _mean(np.array([second - first for first, second in values]), bounded=False)
    sums = np.array([[_sums(value, part) for value in pair] for pair in values], dtype=np.float64)  # [N, 2, 2]
    grouped = np.array([sums[cluster].sum(0) for cluster in clusters_of([second for _, second in pairs])])
    rng = np.random.default_rng(seed)
    drawn = grouped[rng.integers(0, len(grouped), (RESAMPLES, len(grouped)))].sum(1)

    def change(part_sums: NDArray[np.float64]) -> NDArray[np.float64]:
        ratios = _ratio(part_sums, metric)
        found: NDArray[np.float64] = ratios[..., 1] - ratios[..., 0]
        return found

    value = float(change(grouped.sum(0)))
    return Estimate(value, *_percentiles(change(drawn), value))


def _sums(value: Any, part: str) -> Sequence[float]:
    """An item's numerator and denominator."""
    if part == "ratios":
        return value  # type: ignore[no-any-return]
    values = value if isinstance(value, list) else [value]
    return [sum(values), len(values)]


def _ratio(sums: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """A metric of sums [..., 2]: their ratio, exponentiated for perplexities."""
    values: NDArray[np.float64] = sums[..., 0] / sums[..., 1]
    return np.exp(values) if metric.endswith("perplexity") else values


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


def _resampled(sums: NDArray[np.float64], clusters: Sequence[Sequence[int]], metric: str, seed: int) -> Estimate:
    """A metric of items' sums [N, 2], with the percentile bootstrap over clusters."""
    grouped = np.array([sums[list(cluster)].sum(0) for cluster in clusters])
    rng = np.random.default_rng(seed)
    drawn = grouped[rng.integers(0, len(grouped), (RESAMPLES, len(grouped)))].sum(1)
    value = float(_ratio(grouped.sum(0), metric))
    return Estimate(value, *_percentiles(_ratio(drawn, metric), value))


def _percentiles(draws: Sequence[float] | NDArray[np.float64], value: float) -> tuple[float, float]:
    low, high = np.quantile(draws, (0.025, 0.975))
    return min(float(low), value), max(float(high), value)
