"""Money and time: products of intervals against samples, and the GPU-hours that Llama 3.1's model card gives."""

from __future__ import annotations

import numpy as np
import pytest

from herdlm.base.errors import InputError
from herdlm.plan.hardware import read_hardware
from herdlm.plan.money import Figure, rates_of, run_cost
from herdlm.plan.reliability.checkpoints import costs
from herdlm.plan.reliability.failures import read_failures
from herdlm.plan.reliability.plan import Operations
from herdlm.plan.run_forecast import forecast_run, with_interval

H100 = read_hardware().machine("h100")
SURE = Figure(1.0, 1.0, 1.0)


def test_the_interval_of_a_product_is_that_of_its_samples():
    rng = np.random.default_rng(0)
    widths = [0.1, 0.25, 0.05]
    figures = [Figure(x, x * np.exp(-w), x * np.exp(w)) for x, w in zip((2.0, 3.0, 5.0), widths, strict=True)]
    found = figures[0].times(*figures[1:])
    quantile = 1.2816  # of a normal distribution, 90%
    samples = np.exp(
        sum(np.log(f.value) + rng.normal(0, w / quantile, 400_000) for f, w in zip(figures, widths, strict=True))
    )
    assert found == pytest.approx(np.percentile(samples, [50, 10, 90]), rel=0.01)
    assert found.inverse() == pytest.approx((1 / found.value, 1 / found.high, 1 / found.low))


def test_a_run_without_doubt_costs_what_a_hand_reckons():
    rates = rates_of(H100, dollars=(2.0, 2.0), pue=1.25, host_watts=300.0, co2=0.4)
    found = run_cost(
        steps=1000, step_seconds=Figure(86.4, 86.4, 86.4), effective=Figure(0.5, 0.5, 0.5), gpus=16, spare_gpus=8,
        rates=rates,
    )  # fmt: skip
    assert found["days"] == pytest.approx({"value": 2.0, "low": 2.0, "high": 2.0})
    assert found["gpu_hours"]["value"] == pytest.approx(2 * 24 * 16)
    assert found["dollars"]["value"] == pytest.approx(2 * 24 * 24 * 2.0)
    energy = 2 * 24 * 16 * (700 + 300) * 1.25 / 1e6
    assert found["megawatt_hours"]["value"] == pytest.approx(energy)
    assert found["megawatt_hours"]["low"] == pytest.approx(2 * 24 * 16 * (560 + 300) * 1.25 / 1e6)
    assert found["tonnes_co2"]["value"] == pytest.approx(energy * 0.4)


def test_the_405b_takes_the_gpu_hours_of_its_model_card():
    """15.6T tokens at the 400 TFLOP/s of table 4; the model card of Llama 3.1 gives 30.84 million GPU-hours."""
    tokens, per_step = 15.6e12, 2**24
    flops = 6 * 405_853_388_800 + 6 * 126 * 16_384 * 8192  # of a token, causal
    seconds = per_step * flops / (400e12 * 16_384)
    found = forecast_run(
        tokens=tokens,
        tokens_per_step=per_step,
        step_seconds=Figure(seconds, seconds / 1.1, seconds * 1.1),
        gpus=16_384,
        gpus_per_host=8,
        failures=read_failures(),
        checkpoints=costs(405_853_388_800, 16_384),
        operations=Operations(),
        rates=rates_of(H100),
    )
    assert found["gpu_hours"]["low"] < 30.84e6 < found["gpu_hours"]["high"]
    assert found["gpu_hours"]["value"] == pytest.approx(30.84e6, rel=0.1)
    assert found["dollars"]["low"] < found["dollars"]["value"] < found["dollars"]["high"]
    assert "tonnes_co2" not in found  # no factor is given
    assert found["reliability"]["elapsed_days"]["value"] == pytest.approx(found["days"]["value"], rel=1e-3)


def test_impossible_rates_are_refused():
    for wrong in ({"pue": 0.9}, {"dollars": (3.0, 2.0)}, {"host_watts": -1.0}, {"co2": -0.1}):
        with pytest.raises(InputError):
            rates_of(H100, **wrong)
    with pytest.raises(InputError, match="no interval"):
        Figure(1.0, 2.0, 3.0).times(SURE)
    with pytest.raises(InputError, match="never end"):
        forecast_run(
            tokens=1e10,
            tokens_per_step=2**24,
            step_seconds=Figure(10.0, 9.0, 11.0),
            gpus=500_000,
            gpus_per_host=8,
            failures=read_failures(),
            checkpoints=with_interval(costs(405_853_388_800, 500_000), 3600.0),
            operations=Operations(spares=0),
            rates=rates_of(H100),
        )
