"""Forecasts of mixes against the fit they abridge, a world whose law is known, and intervals that cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.scaling.forecast import fit_power_law, forecast_weights
from herdlm.scaling.mixes import backtest, forecast_mixes


@given(
    sizes=st.lists(st.floats(10, 1e9), min_size=2, max_size=6, unique=True).filter(lambda x: max(x) > 1.1 * min(x)),
    at=st.floats(10, 1e12),
    data=st.data(),
)
def test_weights_give_the_forecast_of_the_fitted_law(sizes, at, data):
    losses = data.draw(st.lists(st.floats(0.5, 10), min_size=len(sizes), max_size=len(sizes)))
    weights = forecast_weights(sizes, at)
    assert weights.sum() == pytest.approx(1)
    assert np.exp(weights @ np.log(losses)) == pytest.approx(fit_power_law(sizes, losses)(at), rel=1e-4)


def test_one_model_forecasts_itself_alone():
    assert forecast_weights([7.0], 7.0).tolist() == [1.0]
    with pytest.raises(InputError, match="at least two different sizes"):
        forecast_weights([7.0, 7.0], 8.0)


SIZES, TARGET = [1e4, 3e4, 1e5], 1e6
LAWS = {"a": [(20.0, -0.15), (22.0, -0.16), (20.0, -0.15)], "b": [(9.0, -0.05), (8.5, -0.05), (9.5, -0.05)]}


def losses(rng, rows=300, seeds=1, row_spread=0.3, seed_spread=0.0):
    """Three mixes whose laws are known; rows differ from each other, by the same factors for all mixes."""
    found = {}
    for domain, laws in LAWS.items():
        means = np.array([[factor * n**exponent for n in SIZES] for factor, exponent in laws])
        rowwise = np.exp(rng.normal(0, row_spread, rows) - row_spread**2 / 2)
        noise = np.exp(rng.normal(0, seed_spread, (seeds, 1, len(SIZES), 1)))
        found[domain] = means[None, :, :, None] * rowwise * noise
    return found


def truth(mix, weights):
    whole = sum(weights.values())
    return sum(weights[d] * f * TARGET**e for d, laws in LAWS.items() for f, e in [laws[mix]]) / whole


def test_the_law_of_each_mix_and_domain_is_followed_to_the_target():
    rng = stream(0, "law")
    found = forecast_mixes(losses(rng, row_spread=1e-9), SIZES, TARGET, {"a": 1.0, "b": 3.0}, seed=0, samples=20)
    for mix, forecast in enumerate(found):
        for domain, laws in LAWS.items():
            factor, exponent = laws[mix]
            assert forecast.domains[domain].value == pytest.approx(factor * TARGET**exponent, rel=1e-6)
        assert forecast.score.value == pytest.approx(truth(mix, {"a": 1.0, "b": 3.0}))
        assert forecast.against_first.value == pytest.approx(forecast.score.value - found[0].score.value)
    assert found[0].against_first.value == found[0].against_first.low == 0


@pytest.mark.parametrize(("seeds", "seed_spread"), [(1, 0.0), (8, 0.01)])
def test_intervals_cover_the_truth_as_often_as_they_say(seeds, seed_spread):
    weights = {"a": 1.0, "b": 1.0}
    hits = paired = 0
    for trial in range(80):
        drawn = losses(stream(trial, "cover"), rows=120, seeds=seeds, seed_spread=seed_spread)
        found = forecast_mixes(drawn, SIZES, TARGET, weights, seed=trial, samples=100)
        hits += found[1].score.low <= truth(1, weights) <= found[1].score.high
        difference = truth(1, weights) - truth(0, weights)
        paired += found[1].against_first.low <= difference <= found[1].against_first.high
        width = found[1].against_first.high - found[1].against_first.low
        assert width < found[1].score.high - found[1].score.low  # on the same rows mixes are told apart better
    assert hits >= 0.85 * 80
    assert paired >= 0.85 * 80


def test_one_model_of_the_target_size_is_measured():
    drawn = {name: part[:, :, 2:] for name, part in losses(stream(0, "one")).items()}
    found = forecast_mixes(drawn, [TARGET], TARGET, {"a": 1.0}, seed=0, samples=50)
    assert found[1].score.value == pytest.approx(drawn["a"][0, 1, 0].mean())
    assert set(found[1].domains) == {"a", "b"}  # a domain that weighs nothing is forecast all the same


def test_the_backtest_is_the_largest_model_forecast_by_the_others():
    drawn = losses(stream(0, "back"), row_spread=1e-9)
    assert backtest(drawn, SIZES)["a"] == pytest.approx(np.zeros(3), abs=1e-6)
    drawn["b"][:, 1, 2] *= 1.25
    tested = backtest(drawn, SIZES)["b"]
    assert tested == pytest.approx([0, 1 / 1.25 - 1, 0], abs=1e-6)
    two = {name: part[:, :, :2] for name, part in drawn.items()}
    assert backtest(two, SIZES[:2]) is None
