"""Serving: limits reckoned by hand, formulas against a simulation, the report's nodes, and what must hold."""

from __future__ import annotations

import heapq
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.generate.fp8.config import Fp8Config
from herdlm.plan.constants import read_constants
from herdlm.plan.hardware import read_hardware
from herdlm.plan.job import Shape
from herdlm.plan.memory import PUBLISHED, Node, both_precisions
from herdlm.plan.models import shape_named
from herdlm.plan.serving.load import Goals, Traffic, at_once, most_requests, saturated, steady
from herdlm.plan.serving.plan import Demand, plan_serving
from herdlm.plan.serving.simulate import simulate
from herdlm.plan.serving.speed import Engine, ServingConstants, serving_constants

CATALOG, TRAINING, FITTED = read_hardware(), read_constants(), serving_constants()
H100 = CATALOG.machine("h100")
LARGE, SMALL = shape_named("405b"), shape_named("8b")
IDEAL = ServingConstants(1.0, 1.0, 0.0, 0.0, {"seen": 0.1, "other": 0.1})


def engine(shape=SMALL, machine=H100, constants=FITTED, training=TRAINING, **more):
    return Engine(shape, machine, constants, training, **more)


def faster(machine, **changes):
    return replace(machine, gpu=replace(machine.gpu, **changes))


def test_one_sequence_on_an_ideal_gpu_is_the_roofline():
    one = engine(constants=IDEAL, training=replace(TRAINING, gemm_ramp=0.0))
    read = 2 * (8_030_261_248 - 128_256 * 4096 - 65 * 4096)  # all matrices but the embedding, no norms
    cache = 1000 * 131_072  # bytes of a token's keys and values, from the report's sizes
    assert one.decode(1, 1000) == pytest.approx((read + cache) / 3.35e12, rel=1e-9)
    body = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14_336)
    flops = 2 * body * 8192 + 2 * 128_256 * 4096 + 2 * 32 * 4096 * 8192**2
    assert one.prefill(8192) == pytest.approx(flops / 989.4e12, rel=1e-9)
    many = one.decode(4000, 1) - 4000 * 131_072 / 3.35e12
    assert many == pytest.approx(4000 * 2 * (body + 128_256 * 4096) / 989.4e12, rel=1e-9)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("quantized", ["no", "feed-forward"])
def test_weights_and_cache_are_those_that_fit_reckons(name, quantized):
    shape = Shape.of(PUBLISHED[name])
    rows = both_precisions(name, PUBLISHED[name], Node(), context=8192, concurrency=1, config=Fp8Config())
    known = rows[quantized != "no"]
    found = engine(shape, tp=8, quantized=quantized)
    assert found.weight_bytes == pytest.approx(known.weights_per_gpu, rel=2e-3)  # norms and rounding of scales
    assert found.cache_per_token * 8 == known.cache_per_token


def test_the_405b_needs_two_nodes_in_bf16_and_one_in_fp8():
    """Llama 3 report, section 6: pipeline stages across two nodes in BF16; FP8 fits in one."""
    found = plan_serving(Demand(LARGE, H100, Traffic(1.0, 2000, 500)), FITTED, TRAINING)
    bf16, fp8 = found["plans"]
    assert (bf16["tp"], bf16["pp"], bf16["gpus"]["value"]) == (8, 2, 16)
    assert (fp8["tp"] * fp8["pp"], fp8["gpus"]["value"]) == (8, 8)


def test_fp8_reads_prompts_up_to_half_faster():
    """Report, section 6.2: up to 50% more prefill throughput with FP8 feed-forward."""
    ratio = engine(LARGE, tp=8).prefill(4096) / engine(LARGE, tp=8, quantized="feed-forward").prefill(4096)
    assert 1.3 < ratio < 1.55


def served(one, rate, prompt, answer, requests, seed):
    """Means of an engine that reads waiting prompts first, simulated token by token: an oracle of load.py."""
    rng = np.random.default_rng(seed)
    times = list(rng.exponential(1 / rate, requests).cumsum())
    waiting, running, now = [], [], 0.0
    first, each = [], []
    while times or waiting or running:
        while times and times[0] <= now:
            heapq.heappush(waiting, times.pop(0))
        if waiting:
            came = heapq.heappop(waiting)
            now += one.prefill_busy(prompt)
            first.append(now - came)
            running.append([1, now])
        elif running:
            now += one.decode(len(running), prompt + answer / 2)
            for each_one in running:
                each_one[0] += 1
            each += [(now - start) / (answer - 1) for count, start in running if count == answer]
            running = [each_one for each_one in running if each_one[0] < answer]
        else:
            now = times[0]
    cut = requests // 5
    return np.mean(first[cut:]), np.mean(each[cut:])


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_steady_state_agrees_with_a_simulation(load):
    one = engine()
    prompt, answer = 1000, 60
    rate = load * saturated(one, prompt, answer) / answer
    expected = steady(one, rate, prompt, answer)
    first, each = served(one, rate, prompt, answer, 2500, 1)
    assert expected.first_token == pytest.approx(first, rel=0.1)
    assert expected.each_token == pytest.approx(each, rel=0.1)
    found = simulate(one, rate, (prompt, answer), requests=2500)
    assert found.first_token.mean() == pytest.approx(first, rel=0.1)
    assert found.each_token.mean() == pytest.approx(each, rel=0.1)


def test_an_engine_that_gets_more_than_it_can_take_has_no_steady_state():
    one = engine()
    whole = saturated(one, 1000, 200) / 200
    assert steady(one, whole * 1.01, 1000, 200) is None
    assert steady(one, whole * 0.99, 1000, 200) is not None
    assert most_requests(one, 1000, 200, Goals()) == pytest.approx(whole, rel=1e-3)
    assert most_requests(one, 1000, 200, Goals(each_token=1e-6)) == 0.0


SIZES = st.tuples(st.integers(1, 8000), st.integers(1, 4000), st.sampled_from([1, 2, 4, 8]), st.floats(1.05, 4.0))


@settings(max_examples=40, deadline=None)
@given(SIZES)
def test_better_hardware_is_never_slower(sizes):
    prompt, answer, tp, factor = sizes
    usual = engine(tp=tp)
    machines = {
        "memory": faster(H100, memory_tb_s=H100.gpu.memory_tb_s * factor),
        "products": faster(H100, bf16_tflops=H100.gpu.bf16_tflops * factor),
        "link": replace(H100, link=replace(H100.link, gb_s=H100.link.gb_s * factor)),
        "room": faster(H100, memory_gib=H100.gpu.memory_gib * factor),
    }
    for name, machine in machines.items():
        better = replace(usual, machine=machine)
        assert better.prefill(prompt) <= usual.prefill(prompt), name
        assert better.decode(16, prompt) <= usual.decode(16, prompt), name
        assert saturated(better, prompt, answer) >= saturated(usual, prompt, answer) * (1 - 1e-9), name
    assert at_once(replace(usual, machine=machines["room"]), prompt, answer) >= at_once(usual, prompt, answer)
    smaller = replace(usual, quantized="all", cache_bytes=1)
    assert saturated(smaller, prompt, answer) > saturated(usual, prompt, answer)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.5, 200), st.floats(1.1, 3))
def test_more_requests_never_need_fewer_gpus(rate, factor):
    def gpus(requests):
        demand = Demand(SMALL, H100, Traffic(requests, 500, 200), Goals(each_token=0.05), most=256)
        return plan_serving(demand, FITTED, TRAINING, ("fp8",))["plans"][0]["gpus"]["value"]

    assert gpus(rate * factor) >= gpus(rate)


def test_plans_hold_their_goals_and_are_the_smallest():
    goals = Goals(first_token=1.0, each_token=0.03)
    demand = Demand(LARGE, H100, Traffic(2.0, 2000, 500), goals)
    plan = plan_serving(demand, FITTED, TRAINING, ("fp8",))["plans"][0]
    assert plan["first_token_s"]["value"] <= 1.0 and plan["each_token_s"]["value"] <= 0.03
    assert plan["gpus"]["low"] <= plan["gpus"]["value"] and all(
        plan["gpus"]["value"] <= other["gpus"]["value"] for other in plan["other_engines"]
    )
    one = engine(LARGE, tp=plan["tp"], pp=plan["pp"], quantized="feed-forward")
    fewer = plan["engines"] - 1
    found = steady(one, 2.0 / fewer, 2000, 500) if fewer else None
    assert found is None or found.each_token > 0.03 or found.first_token > 1.0
    assert plan["percentiles"]["each_token_s"]["p50"] == pytest.approx(plan["each_token_s"]["value"], rel=0.15)


def test_impossible_demands_are_refused():
    with pytest.raises(InputError, match="no engine is as fast"):
        plan_serving(Demand(LARGE, H100, Traffic(1, 100, 100), Goals(each_token=1e-5)), FITTED, TRAINING)
    with pytest.raises(InputError, match="not one request fits"):
        plan_serving(Demand(LARGE, H100, Traffic(1, 10**9, 100)), FITTED, TRAINING, ("bf16",))
    with pytest.raises(InputError):
        Traffic(0, 1, 1)
