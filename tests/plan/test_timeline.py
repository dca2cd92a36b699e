"""A step of a pipeline in time: its bubble by simulation and by formula, and its trace."""

import json

import pytest

from herdlm.parallel.config import ParallelConfig, Sizes
from herdlm.parallel.schedule import Action
from herdlm.plan.constants import read_constants
from herdlm.plan.hardware import read_hardware
from herdlm.plan.in_flight import order_of
from herdlm.plan.job import Job, Layout, Shape
from herdlm.plan.stacks import stack_named
from herdlm.plan.step_time import stage_layers, step_time
from herdlm.plan.timeline import simulate
from herdlm.plan.trace import INSIDE, trace
from herdlm.plan.training_memory import bubble


def even(pp, vpp, split=False):
    """A micro-batch on a rank takes 3 seconds: 1 forward, 2 backward, which may be split."""
    kinds = {"forward": 1, "backward": 1 if split else 2, "weights": 1}
    return lambda kind, stage: kinds[kind] / vpp


@pytest.mark.parametrize("pp", [2, 3, 4, 8])
@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize(("schedule", "vpp"), [("1f1b", 1), ("gpipe", 1), ("interleaved", 2), ("interleaved", 4)])
def test_the_bubble_is_that_of_the_formula(pp, rounds, schedule, vpp):
    micro = rounds * pp
    found = simulate(order_of(pp, vpp, micro, schedule), even(pp, vpp))
    known = "1f1b" if schedule == "gpipe" else schedule
    config = ParallelConfig(pp=pp, pipeline_schedule=known, stages_per_rank=vpp)
    assert found.idle / (3 * micro) == pytest.approx(bubble(config, Sizes(1, 1, pp, 1, 1), micro))
    assert found.seconds == pytest.approx(3 * micro + 3 * (pp - 1) / vpp)


@pytest.mark.parametrize("pp", [2, 4, 8])
def test_a_split_backward_pass_waits_a_third_as_long(pp):
    micro = 3 * pp
    whole = simulate(order_of(pp, 1, micro, "1f1b"), even(pp, 1))
    split = simulate(order_of(pp, 1, micro, "zero-bubble"), even(pp, 1, split=True))
    assert split.idle < whole.idle
    assert split.idle == pytest.approx(pp, abs=1)
    assert all(split.busy(rank) == pytest.approx(3 * micro) for rank in range(pp))


def test_passes_wait_for_their_inputs_and_ranks_do_one_at_a_time():
    found = simulate(order_of(4, 2, 6, "interleaved"), lambda kind, stage: 1 + stage / 10, sent=0.25)
    ends = {(each.kind, each.stage, each.micro): each.end for slices in found.ranks for each in slices}
    assert len(ends) == 2 * 8 * 6
    for slices in found.ranks:
        assert all(first.end <= then.begin for first, then in zip(slices, slices[1:], strict=False))
        for each in slices:
            if each.kind == "forward" and each.stage:
                assert each.begin >= ends["forward", each.stage - 1, each.micro] + 0.25
            elif each.kind == "backward" and each.stage < 7:
                assert each.begin >= ends["backward", each.stage + 1, each.micro] + 0.25


def test_orders_that_wait_for_each_other_are_refused():
    orders = [[Action("backward", 0, 0), Action("forward", 0, 0)], [Action("forward", 1, 0), Action("backward", 1, 0)]]
    with pytest.raises(ValueError, match="wait for each other"):
        simulate(orders, lambda kind, stage: 1.0)


@pytest.mark.parametrize(("schedule", "vpp"), [("1f1b", 1), ("interleaved", 2), ("zero-bubble", 1)])
def test_a_trace_has_the_time_models_parts(schedule, vpp):
    shape = Shape(layers=30, hidden=4096, ffn=14_336, heads=32, kv_heads=8, vocab=48_000)
    layout = Layout(tp=4, pp=4, vpp=vpp, dp_shard=2, schedule=schedule)
    job = Job(shape, layout, 32, "h100", 8192, 8192 * 16)
    stack = stack_named(None)
    step = step_time(job, read_hardware().machine("h100"), read_constants(), stack)
    found = trace(job, step.parts, stage_layers(job, stack))
    events = json.loads(json.dumps(found.as_json()))["traceEvents"]
    passes = [each for each in events if each.get("cat") in ("forward", "backward", "weights")]
    assert len(passes) == 4 * 8 * vpp * (3 if schedule == "zero-bubble" else 2)
    busiest = max(sum(each["dur"] for each in passes if each["pid"] == rank) for rank in range(4)) / 1e6
    assert busiest == pytest.approx(sum(step.parts[name] for name in INSIDE))
    for name in ("optimizer", "dp", "waiting"):
        assert sum(each["dur"] for each in events if each["name"] == name) / 4e6 == pytest.approx(step.parts[name])
    sent = sum(each["dur"] for each in events if each["name"] == "tp" and each["pid"] == 1) / 1e6
    assert sent == pytest.approx(step.parts["tp"], rel=0.1)
    # The formula has equal stages; the first of these has a layer less.
    assert found.waiting == pytest.approx(step.parts["bubble"], rel=0.2)
    end = max(each["ts"] + each["dur"] for each in events if each["ph"] == "X") / 1e6
    assert end == pytest.approx(step.seconds, rel=0.08)
