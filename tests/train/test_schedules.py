"""The learning rate as a function of the step alone, and what weight decay means."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.train.config import TrainConfig
from herdlm.train.loop import make_optimizer
from herdlm.train.schedules import learning_rate
from tests.conftest import small_model


@st.composite
def schedules(draw):
    warmup, middle, anneal = draw(st.integers(0, 30)), draw(st.integers(1, 80)), draw(st.integers(0, 30))
    decay = draw(st.sampled_from(["cosine", "linear", "constant", "warmup-stable-decay"]))
    fall = None if decay == "constant" else draw(st.integers(1, 120))
    if decay in ("cosine", "linear"):
        fall = draw(st.sampled_from([fall, None]))
    config = TrainConfig(
        peak_lr=draw(st.floats(1e-6, 1.0)),
        warmup_steps=warmup,
        decay=decay,
        decay_steps=fall,
        floor=draw(st.floats(0, 1)),
        anneal_steps=anneal,
    )
    return config, warmup + middle + anneal


@given(schedules())
@settings(max_examples=200, deadline=None)
def test_every_schedule_rises_to_the_peak_and_never_again(made):
    config, steps = made
    rates = [learning_rate(step, steps, config) for step in range(steps)]
    assert all(0 <= rate <= config.peak_lr * (1 + 1e-12) for rate in rates)
    warm = rates[: config.warmup_steps]
    assert warm == sorted(warm)
    if warm:
        assert warm[-1] == config.peak_lr
    rest = rates[config.warmup_steps :]
    assert all(a >= b - 1e-15 for a, b in zip(rest, rest[1:], strict=False))
    if config.anneal_steps:
        tail = [*rates[-config.anneal_steps :], 0.0]
        falls = [a - b for a, b in zip(tail, tail[1:], strict=False)]
        assert all(math.isclose(fall, falls[0], rel_tol=1e-6, abs_tol=1e-15) for fall in falls)
    elif config.decay != "constant":
        assert rates[-1] >= config.floor * config.peak_lr - 1e-15


@given(schedules(), st.data())
@settings(max_examples=100, deadline=None)
def test_a_run_that_is_the_first_part_has_the_whole_runs_rates(made, data):
    config, steps = made
    part = data.draw(st.integers(1, steps))
    first = config.model_copy(update={"horizon_steps": steps})
    for step in range(part):
        assert learning_rate(step, part, first) == learning_rate(step, steps, config)


def test_warmup_stable_decay_stands_at_its_peak_until_the_fall():
    config = TrainConfig(
        peak_lr=2.0, warmup_steps=10, decay="warmup-stable-decay", decay_steps=20, floor=0.1, anneal_steps=30
    )
    rates = [learning_rate(step, 130, config) for step in range(130)]
    assert rates[9:81] == [2.0] * 72
    assert rates[90] == pytest.approx(2.0 * 0.55)
    assert rates[99] == pytest.approx(2.0 * (0.1 + 0.9 / 20))
    assert rates[100] == pytest.approx(0.2 * 30 / 31)


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_a_warm_up_that_lasts_until_the_anneal_leaves_no_time_to_decay(decay):
    config = TrainConfig(peak_lr=2.0, warmup_steps=4, decay=decay, floor=0.1, anneal_steps=3)
    rates = [learning_rate(step, 7, config) for step in range(7)]
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0 * 3 / 4, 2.0 * 2 / 4, 2.0 * 1 / 4])


def test_a_cosine_longer_than_the_run_stops_on_its_way():
    """The report's: to 8e-7 after 1,200,000 steps, of which 8,000 are warm-up."""
    config = TrainConfig(peak_lr=8e-5, warmup_steps=8000, decay_steps=1_192_000, floor=0.01, anneal_steps=100)
    assert learning_rate(7999, 1_300_000, config) == 8e-5
    assert learning_rate(1_200_000, 1_300_000, config) == pytest.approx(8e-7)
    assert learning_rate(1_250_000, 1_300_000, config) == pytest.approx(8e-7)
    assert learning_rate(604_000, 1_000_000, config) == pytest.approx((8e-5 + 8e-7) / 2)
    short = learning_rate(999_900, 1_000_000, config)
    assert 8e-7 < short < 8e-5 / 8


def test_weight_decay_is_a_share_of_the_learning_rate():
    """Without a gradient a step takes weight_decay x its rate off each matrix and leaves norms alone."""
    model = small_model()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = make_optimizer(model, TrainConfig(peak_lr=0.5, weight_decay=0.1))
    for group in optimizer.param_groups:
        group["lr"] = 0.02
    for value in model.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    for name, value in model.named_parameters():
        shrunk = before[name] if "norm" in name else before[name] * (1 - 0.1 * 0.02)
        torch.testing.assert_close(value.detach(), shrunk, rtol=1e-6, atol=0, msg=name)
