"""Power laws are recovered from points on them, and refused from too few."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.scaling.forecast import fit_power_law


@given(factor=st.floats(0.5, 50), exponent=st.floats(-0.5, 0.5), start=st.floats(10, 1e6))
def test_a_law_is_recovered_from_its_points(factor, exponent, start):
    sizes = [start, 3 * start, 10 * start]
    law = fit_power_law(sizes, [factor * x**exponent for x in sizes])
    assert law.exponent == pytest.approx(exponent, abs=1e-6)
    assert law(1000 * start) == pytest.approx(factor * (1000 * start) ** exponent, rel=1e-4)


def test_the_reports_law_gives_its_result():
    # Llama 3 report, section 3.2.1: N*(C) = 0.299 C^0.537 forecasts 16.55T tokens at 3.8e25 FLOPs.
    budgets = [6e18, 1e20, 1e21, 1e22]
    law = fit_power_law(budgets, [0.299 * c**0.537 for c in budgets])
    assert law(3.8e25) == pytest.approx(16.3e12, rel=0.01)


def test_one_size_is_no_law():
    with pytest.raises(InputError, match="at least two different sizes"):
        fit_power_law([5.0, 5.0], [1.0, 2.0])
