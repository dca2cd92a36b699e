"""Verdicts: a claim is shown only if its whole 95% interval is on the claimed side."""

from __future__ import annotations

from herdlm.report.data import Check, Forecast, Interval, Verdict
from herdlm.report.format import loss, percent, signed

FP8_MARGIN = 0.02
FORECAST_MARGIN = 0.05
CHANCE = 0.5


def verdict_above(interval: Interval, bound: float = 0.0) -> Verdict:
    """Whether the interval lies above ``bound``; one that touches the bound shows nothing."""
    if interval.low > bound:
        return "shown"
    return "contrary" if interval.high < bound else "not shown"


def verdict_below(interval: Interval, bound: float = 0.0) -> Verdict:
    """Whether the interval lies below ``bound``."""
    return verdict_above(Interval(-interval.value, -interval.high, -interval.low), -bound)


def verdict_within(interval: Interval, margin: float) -> Verdict:
    """Whether the whole interval lies within +-``margin``; contrary if all of it lies beyond, on one side."""
    if -margin <= interval.low and interval.high <= margin:
        return "shown"
    return "contrary" if interval.low > margin or interval.high < -margin else "not shown"


def above(name: str, claim: str, better: tuple[str, float], worse: tuple[str, float], difference: Interval) -> Check:
    """The claim that one model passes more held-out questions than another; models are (label, pass rate)."""
    endings: dict[Verdict, str] = {
        "shown": "The interval lies above 0.",
        "not shown": "The interval holds 0, so no difference is shown.",
        "contrary": "The interval lies below 0: this run shows the opposite.",
    }
    verdict = verdict_above(difference)
    rule = "the paired interval lies above 0"
    return _paired(name, claim, difference, verdict, rule=rule, text=_compared(better, worse) + endings[verdict])


def below(name: str, claim: str, worse: tuple[str, float], better: tuple[str, float], difference: Interval) -> Check:
    """The claim that one model passes fewer held-out questions than another."""
    endings: dict[Verdict, str] = {
        "shown": "The interval lies below 0.",
        "not shown": "The interval holds 0, so no loss is shown.",
        "contrary": "The interval lies above 0: this run shows the opposite.",
    }
    verdict = verdict_below(difference)
    rule = "the paired interval lies below 0"
    return _paired(name, claim, difference, verdict, rule=rule, text=_compared(worse, better) + endings[verdict])


def lossless(
    name: str, claim: str, changed: tuple[str, float], original: tuple[str, float], difference: Interval
) -> Check:
    """The claim that a changed model's pass rate is within 2 points of the original's."""
    margin = f"{100 * FP8_MARGIN:g} points"
    endings: dict[Verdict, str] = {
        "shown": f"The interval lies within {margin} of 0.",
        "not shown": f"The interval reaches beyond {margin}, so equality within {margin} is not shown.",
        "contrary": f"The interval lies more than {margin} from 0: the change matters.",
    }
    verdict = verdict_within(difference, FP8_MARGIN)
    rule = f"the paired interval lies within {margin} of 0"
    return _paired(name, claim, difference, verdict, rule=rule, text=_compared(changed, original) + endings[verdict])


def expected_loss(forecast: Forecast) -> Check:
    """The claim that the measured loss is within 5% of the one forecast on the axis fixed beforehand."""
    axis = forecast.axis
    deviation = axis.forecast / forecast.measured - 1
    verdict: Verdict = "shown" if abs(deviation) <= FORECAST_MARGIN else "contrary"
    fixed = "was fixed beforehand as the axis that counts"
    if not forecast.came_before:
        verdict, fixed = "not shown", "counts, but this forecast was made after the flagship had trained"
    band = " and ".join(f"{loss(other.forecast)} on {axis_label(other.name)}" for other in forecast.axes)
    inside = "within" if verdict == "shown" else "outside"
    return Check(
        "forecast-matches",
        "The ladder forecasts the flagship's loss within 5%",
        "deviation",
        deviation,
        None,
        None,
        verdict,
        f"the forecast is within {percent(FORECAST_MARGIN, 0)} of the measured loss",
        f"The forecast was {band}; {axis_label(axis.name)} {fixed}. Measured: "
        f"{loss(forecast.measured)} nats per token. The forecast is off by {signed(100 * deviation)}%, {inside} the "
        f"{percent(FORECAST_MARGIN, 0)} allowed. It is one forecast of one model.",
    )


def beats_chance(number: int, accuracy: Interval) -> Check:
    """The claim that a round's reward model ranks held-out pairs better than a coin."""
    verdict = verdict_above(accuracy, CHANCE)
    ending = {
        "shown": "above the 50% of a coin.",
        "not shown": "an interval that holds the 50% of a coin, so nothing is shown.",
        "contrary": "below the 50% of a coin.",
    }[verdict]
    return Check(
        f"reward-round-{number}",
        f"Round {number}'s reward model ranks held-out pairs better than chance",
        "rate",
        accuracy.value,
        accuracy.low,
        accuracy.high,
        verdict,
        "the interval lies above 50%",
        f"It ranks {percent(accuracy.value)} of held-out pairs as the annotator did "
        f"({percent(accuracy.low)} to {percent(accuracy.high)}), {ending}",
    )


def axis_label(name: str) -> str:
    """The name of a forecast's axis for readers."""
    return {"parameters": "all parameters", "body_parameters": "parameters without embeddings"}.get(name, name)


def _paired(name: str, claim: str, difference: Interval, verdict: Verdict, *, rule: str, text: str) -> Check:
    return Check(name, claim, "difference", difference.value, difference.low, difference.high, verdict, rule, text)


def _compared(one: tuple[str, float], other: tuple[str, float]) -> str:
    return f"{_opening(one[0])}: {percent(one[1])}. {_opening(other[0])}: {percent(other[1])}. "


def _opening(text: str) -> str:
    return text[:1].upper() + text[1:]
