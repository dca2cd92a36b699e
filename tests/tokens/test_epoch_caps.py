"""Shares under caps: the caps hold, what can stay stays, and nothing lies nearer to what was asked for."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from herdlm.tokens.epoch_caps import capped_shares, scarce


@st.composite
def runs(draw, most_mixes=4):
    count, sources = draw(st.integers(1, most_mixes)), draw(st.integers(1, 5))
    weight = st.one_of(st.just(0.0), st.floats(0.01, 1.0))
    wanted = np.array([[draw(weight) for _ in range(sources)] for _ in range(count)])
    assume((wanted.sum(1) > 0).all())
    wanted /= wanted.sum(1, keepdims=True)
    tokens = np.array([draw(st.floats(1.0, 100.0)) for _ in range(count)])
    supply = np.array([draw(st.one_of(st.just(np.inf), st.floats(0.5, 200.0))) for _ in range(sources)])
    return tokens, wanted, supply


def water_filling(tokens, wanted, supply):
    """One mix, by its definition: raise a common level until all tokens are given out; no source above its supply."""
    low, high = 1.0, 1e12
    for _ in range(200):
        level = (low * high) ** 0.5
        given_out = np.minimum(level * wanted * tokens, supply)
        low, high = (level, high) if given_out.sum() < tokens else (low, level)
    return np.minimum(high * wanted * tokens, supply) / tokens


@given(runs(most_mixes=1))
@settings(max_examples=200, deadline=None)
def test_one_mix_is_filled_like_water(run):
    tokens, wanted, supply = run
    assume(scarce(tokens, wanted, 0.999 * supply) is None)
    expected = water_filling(tokens[0], wanted[0], supply)
    assert capped_shares(*run)[0] == pytest.approx(expected, abs=1e-8)


@given(runs())
@settings(max_examples=200, deadline=None)
def test_caps_hold_and_the_result_is_the_nearest(run):
    """The conditions of Karush, Kuhn and Tucker, which of this convex problem only its solution meets."""
    tokens, wanted, supply = run
    assume(scarce(tokens, wanted, 0.999 * supply) is None)  # with room: at the very edge sweeps come near, no more
    shares = capped_shares(*run)
    assert shares.sum(1) == pytest.approx(1.0, abs=1e-12)
    read = tokens @ shares
    assert (read <= supply * (1 + 1e-8)).all()
    assert ((shares > 0) == (wanted > 0)).all()
    # shares = wanted * raised[mix] * kept[source], where kept is below 1 only for a source that is read to its cap
    free = read < supply * (1 - 1e-6)
    factors = np.divide(shares, wanted, out=np.full_like(shares, np.nan), where=wanted > 0)
    for row in factors:
        level = row[free & ~np.isnan(row)]
        if len(level):
            assert level == pytest.approx(level[0], rel=1e-8)
            assert (row[~free & ~np.isnan(row)] <= level[0] * (1 + 1e-8)).all()
    for one in range(len(tokens)):
        for other in range(one):
            both = ~np.isnan(factors[one]) & ~np.isnan(factors[other])
            ratio = factors[one][both] / factors[other][both]
            assert ratio == pytest.approx(np.full(both.sum(), ratio[0] if both.any() else 1.0), rel=1e-6)


@given(runs())
@settings(max_examples=200, deadline=None)
def test_what_is_impossible_is_found_by_trying_every_set_of_mixes(run):
    """Gale's condition: it is possible exactly if no set of mixes needs more than all sources it reads can give."""
    tokens, wanted, supply = run
    count = len(tokens)
    gaps = []
    for chosen in range(1, 2**count):
        mixes = np.array([chosen >> m & 1 for m in range(count)], bool)
        gaps.append(tokens[mixes].sum() - supply[(wanted[mixes] > 0).any(0)].sum())
    worst = max(gaps)
    assume(abs(worst) > 1e-6)
    found = scarce(*run)
    assert (found is not None) == (worst > 0)
    if found:
        mixes, sources = found
        assert (sources == (wanted[mixes] > 0).any(0)).all()
        assert tokens[mixes].sum() - supply[sources].sum() == pytest.approx(worst, rel=1e-6)


@given(runs())
@settings(max_examples=50, deadline=None)
def test_caps_that_do_not_bind_change_no_bit(run):
    tokens, wanted, _ = run
    supply = tokens @ wanted * 1.01 + 1e-9
    assert np.array_equal(capped_shares(tokens, wanted, supply), wanted)


def test_by_hand():
    # Of 100 tokens a asks 50 and may give 20; b and c take the other 30 as 3 to 2.
    shares = capped_shares(np.array([100.0]), np.array([[0.5, 0.3, 0.2]]), np.array([20.0, np.inf, np.inf]))
    assert shares[0] == pytest.approx([0.2, 0.48, 0.32])
    # With b at most 40 too, c takes what is left.
    shares = capped_shares(np.array([100.0]), np.array([[0.5, 0.3, 0.2]]), np.array([20.0, 40.0, np.inf]))
    assert shares[0] == pytest.approx([0.2, 0.4, 0.4])
