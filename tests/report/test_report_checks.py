"""Verdicts at their borders: an interval that touches the border shows nothing."""

from __future__ import annotations

import pytest

from herdlm.report.checks import (
    above,
    beats_chance,
    below,
    expected_loss,
    lossless,
    verdict_above,
    verdict_below,
    verdict_within,
)
from herdlm.report.data import Axis, Forecast, Interval
from herdlm.report.format import figure, interval


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.1, "shown"),
        (0.0, 0.1, "not shown"),
        (-0.1, 0.1, "not shown"),
        (0.0, 0.0, "not shown"),
        (-0.1, 0.0, "not shown"),
        (-0.1, -0.001, "contrary"),
    ],
)
def test_a_difference_is_shown_only_when_its_interval_leaves_out_zero(low: float, high: float, verdict: str) -> None:
    middle = Interval((low + high) / 2, low, high)
    mirrored = Interval(-middle.value, -high, -low)
    assert verdict_above(middle) == verdict
    assert verdict_below(mirrored) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.02, 0.02, "shown"),
        (0.0, 0.0, "shown"),
        (-0.0201, 0.0, "not shown"),
        (0.0, 0.0201, "not shown"),
        (-0.1, 0.1, "not shown"),
        (-0.1, -0.02, "not shown"),
        (-0.1, -0.0201, "contrary"),
        (0.0201, 0.1, "contrary"),
    ],
)
def test_equality_needs_the_whole_interval_within_the_margin(low: float, high: float, verdict: str) -> None:
    assert verdict_within(Interval((low + high) / 2, low, high), 0.02) == verdict


@pytest.mark.parametrize(
    ("forecast", "verdict"),
    [(4.0, "shown"), (4.199, "shown"), (3.801, "shown"), (4.201, "contrary"), (3.799, "contrary")],
)
def test_the_forecast_counts_on_the_axis_fixed_beforehand(forecast: float, verdict: str) -> None:
    ladder = (("a", 10.0, 5.0), ("b", 20.0, 4.5))
    right = Axis("parameters", 1.0, -0.1, ladder, 40.0, forecast)
    other = Axis("body_parameters", 1.0, -0.1, ladder, 30.0, 400.0)
    check = expected_loss(Forecast((other, right), "parameters", 4.0, came_before=True))
    assert check.verdict == verdict
    assert check.value == pytest.approx(forecast / 4.0 - 1)
    assert f"{forecast:.3f} on all parameters" in check.says
    assert "400.000 on parameters without embeddings" in check.says
    assert interval(check) == "one measurement"


def test_sentences_say_what_the_verdict_says() -> None:
    one, other = ("model a", 0.5), ("model b", 0.4)
    shown = above("n", "c", one, other, Interval(0.1, 0.05, 0.15))
    assert shown.says == "Model a: 50.0%. Model b: 40.0%. The interval lies above 0."
    assert (figure(shown), interval(shown)) == ("+10.0 points", "+5.0 to +15.0")
    assert above("n", "c", one, other, Interval(0.1, -0.05, 0.15)).says.endswith("so no difference is shown.")
    assert above("n", "c", one, other, Interval(-0.1, -0.15, -0.05)).says.endswith("shows the opposite.")
    collapse = below("n", "c", other, one, Interval(-0.1, -0.15, -0.05))
    assert (collapse.verdict, figure(collapse)) == ("shown", "\N{MINUS SIGN}10.0 points")
    assert "not shown" in lossless("n", "c", one, other, Interval(0.0, -0.03, 0.03)).says
    assert beats_chance(1, Interval(0.6, 0.5, 0.7)).verdict == "not shown"
    assert beats_chance(1, Interval(0.6, 0.51, 0.7)).verdict == "shown"
    assert beats_chance(1, Interval(0.4, 0.3, 0.49)).verdict == "contrary"


def test_a_difference_that_rounds_to_zero_has_no_sign() -> None:
    check = above("n", "c", ("a", 0.5), ("b", 0.5), Interval(-0.0001, -0.01, 0.01))
    assert figure(check) == "0.0 points"


def test_a_forecast_made_after_the_flagship_shows_nothing() -> None:
    axis = Axis("parameters", 1.0, -0.1, (("a", 10.0, 5.0), ("b", 20.0, 4.5)), 40.0, 4.0)
    check = expected_loss(Forecast((axis,), "parameters", 4.0, came_before=False))
    assert check.verdict == "not shown"
    assert "made after the flagship had trained" in check.says
