"""Forecasts of a large model's loss in each domain for several data mixes, from small models trained on each.

Llama 3 report, section 3.1.2: several small models are trained on each candidate mix, and the performance of a large
model on that mix is predicted from them. Here a power law in model size is fitted for each mix and domain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from herdlm.base.seeds import stream
from herdlm.scaling.forecast import forecast_weights


@dataclass(frozen=True, slots=True)
class ForecastInterval:
    """A forecast with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MixForecast:
    """What is expected of one mix.

    Args:
        domains: loss by domain.
        score: their weighted mean.
        against_first: the score less that of the first mix, row by row on the same text.
    """

    domains: dict[str, ForecastInterval]
    score: ForecastInterval
    against_first: ForecastInterval


def forecast_mixes(
    losses: Mapping[str, NDArray[np.float64]],
    sizes: Sequence[float],
    at: float,
    weights: Mapping[str, float],
    *,
    seed: int,
    samples: int = 1000,
) -> list[MixForecast]:
    """Forecast the losses of a model of size ``at`` for each mix.

    Intervals hold 95% of a bootstrap: held-out rows are drawn anew, the same for all mixes and models, and of several
    training seeds, for each model, the same for all mixes. They say nothing of whether losses follow a power law; for
    that, see :func:`backtest`.

    Args:
        losses: by domain, nats per token of each held-out row, [seeds, mixes, models, rows].
        sizes: of the models, [models]. One model of size ``at`` alone is measured rather than forecast.
        weights: of the domains in the score, relative to each other.
    """
    counts = forecast_weights(sizes, at)
    whole = sum(weights.values())
    shares = np.array([weights.get(domain, 0.0) / whole for domain in losses])
    found = np.stack([_at_size(part.mean(-1).mean(0), counts) for part in losses.values()])
    seeds = next(iter(losses.values())).shape[0]
    drawn = np.empty((samples, *found.shape))
    rng = stream(seed, "bootstrap of mixes")
    for sample in range(samples):
        picks = rng.integers(0, seeds, (len(sizes), seeds))
        for number, part in enumerate(losses.values()):
            rows = part.shape[-1]
            times = np.bincount(rng.integers(0, rows, rows), minlength=rows)
            means = part @ times / rows
            picked = np.stack([means[picks[model], :, model].mean(0) for model in range(len(sizes))], 1)
            drawn[sample, number] = _at_size(picked, counts)
    scores, scores_drawn = shares @ found, np.einsum("d,sdm->sm", shares, drawn)
    return [
        MixForecast(
            {domain: _estimate(found[d, mix], drawn[:, d, mix]) for d, domain in enumerate(losses)},
            _estimate(scores[mix], scores_drawn[:, mix]),
            _estimate(scores[mix] - scores[0], scores_drawn[:, mix] - scores_drawn[:, 0]),
        )
        for mix in range(found.shape[1])
    ]


def backtest(
    losses: Mapping[str, NDArray[np.float64]], sizes: Sequence[float]
) -> dict[str, NDArray[np.float64]] | None:
    """How far the loss of the largest model is from its forecast by the smaller ones: forecast / measured - 1.

    Returns:
        by domain, [mixes]; None where the smaller models are of fewer than two sizes.
    """
    largest = int(np.argmax(sizes))
    smaller = [number for number, size in enumerate(sizes) if size < sizes[largest]]
    if len({sizes[number] for number in smaller}) < 2:
        return None
    counts = forecast_weights([sizes[number] for number in smaller], sizes[largest])
    means = {domain: part.mean(-1).mean(0) for domain, part in losses.items()}
    return {domain: _at_size(mean[:, smaller], counts) / mean[:, largest] - 1 for domain, mean in means.items()}


def _at_size(losses: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Losses [mixes, models] to the forecast of each mix, [mixes]."""
    forecasts: NDArray[np.float64] = np.exp(np.log(losses) @ counts)
    return forecasts


def _estimate(value: float, drawn: NDArray[np.float64]) -> ForecastInterval:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return ForecastInterval(float(value), float(low), float(high))
