"""Forecasts a large model's loss on several data mixes, by domain, from small models trained on each mix.

Llama 3 report, section 3.1.2: small models are trained on each candidate mix to predict the performance of a large
model on it. Here a power law in model size is fitted for each mix and domain.
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
    """The forecast for one mix.

    Args:
        domains: loss by domain.
        score: their weighted mean.
        against_first: the score minus that of the first mix, paired by row.
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

    Intervals hold 95% of a bootstrap that resamples held-out rows, the same for all mixes and models, and training
    seeds of each model, the same for all mixes. They do not cover whether losses follow a power law; for that, see
    :func:`backtest`.

    Args:
        losses: by domain, nats per token of each held-out row, [seeds, mixes, models, rows].
        sizes: of the models, [models]. If all have size ``at``, losses are measured rather than forecast.
        weights: relative weights of the domains in the score.
    """
    counts = forecast_weights(sizes, at)
    whole = sum(weights.values())
    shares = np.array([weights.get(domain, 0.0) / whole for domain in losses])
    forecasts = np.stack([_at_size(part.mean(-1).mean(0), counts) for part in losses.values()])
    seeds = next(iter(losses.values())).shape[0]
    drawn = np.empty((samples, *forecasts.shape))
    rng = stream(seed, "bootstrap of mixes")
    for sample in range(samples):
        picks = rng.integers(0, seeds, (len(sizes), seeds))
        for number, part in enumerate(losses.values()):
            rows = part.shape[-1]
            times = np.bincount(rng.integers(0, rows, rows), minlength=rows)
            means = part @ times / rows
            picked = np.stack([means[picks[model], :, model].mean(0) for model in range(len(sizes))], 1)
            drawn[sample, number] = _at_size(picked, counts)
    scores, scores_drawn = shares @ forecasts, np.einsum("d,sdm->sm", shares, drawn)
    return [
        MixForecast(
            {domain: _estimate(forecasts[d, mix], drawn[:, d, mix]) for d, domain in enumerate(losses)},
            _estimate(scores[mix], scores_drawn[:, mix]),
            _estimate(scores[mix] - scores[0], scores_drawn[:, mix] - scores_drawn[:, 0]),
        )
        for mix in range(forecasts.shape[1])
    ]


def backtest(
    losses: Mapping[str, NDArray[np.float64]], sizes: Sequence[float]
) -> dict[str, NDArray[np.float64]] | None:
    """The relative error of forecasting the largest model from the smaller ones: forecast / measured - 1.

    Returns:
        by domain, [mixes]; None if the smaller models have fewer than two sizes.
    """
    largest = int(np.argmax(sizes))
    smaller = [number for number, size in enumerate(sizes) if size < sizes[largest]]
    if len({sizes[number] for number in smaller}) < 2:
        return None
    counts = forecast_weights([sizes[number] for number in smaller], sizes[largest])
    means = {domain: part.mean(-1).mean(0) for domain, part in losses.items()}
    return {domain: _at_size(mean[:, smaller], counts) / mean[:, largest] - 1 for domain, mean in means.items()}


def _at_size(losses: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The forecast of each mix, [mixes], from losses [mixes, models]."""
    forecasts: NDArray[np.float64] = np.exp(np.log(losses) @ counts)
    return forecasts


def _estimate(value: float, drawn: NDArray[np.float64]) -> ForecastInterval:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return ForecastInterval(float(value), float(low), float(high))
