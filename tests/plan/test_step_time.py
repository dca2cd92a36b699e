"""The time model: its parts add up, nothing gets slower with better hardware, limits are rooflines, Table 4 holds."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.parallel.schedule import make_schedule
from herdlm.plan.constants import constants_text, read_constants
from herdlm.plan.hardware import read_hardware
from herdlm.plan.job import Job, Layout, Shape
from herdlm.plan.models import shape_named
from herdlm.plan.predict import fastest, predict
from herdlm.plan.request import Request
from herdlm.plan.stacks import stack_named, stacks
from herdlm.plan.step_time import PARTS, idle, stage_layers, step_time

CATALOG, CONSTANTS = read_hardware(), read_constants()
SHAPES = [shape_named("8b"), shape_named("70b"), Shape(24, 2048, 8192, 16, 16, 50_304, mlp="plain", tied=True)]


@st.composite
def jobs(draw):
    tp, cp, pp = (draw(st.sampled_from(sizes)) for sizes in ((1, 2, 8), (1, 2, 4), (1, 2, 4)))
    vpp = draw(st.sampled_from((1, 2))) if pp > 1 else 1
    shard, replicate = draw(st.sampled_from((1, 2, 16))), draw(st.sampled_from((1, 2)))
    micro = draw(st.sampled_from((1, 2)))
    layout = Layout(
        tp=tp, cp=cp, pp=pp, vpp=vpp, dp_shard=shard, dp_replicate=replicate, micro_batch=micro,
        schedule="interleaved" if vpp > 1 else draw(st.sampled_from(("1f1b", "zero-bubble"))) if pp > 1 else "1f1b",
        recompute=draw(st.sampled_from(("none", "selective", "full"))),
        precision=draw(st.sampled_from(("bf16", "fp8"))),
        reshard_after_forward=draw(st.booleans()),
        offload=draw(st.sampled_from(("none", "activations", "optimizer"))),
        sharding=draw(st.sampled_from(("fsdp", "zero1", "zero2", "ddp"))),
        async_tp=draw(st.booleans()),
    )  # fmt: skip
    seq_len = draw(st.sampled_from((2048, 8192, 65_536)))
    rows = layout.dp * micro * draw(st.sampled_from((1, 2, 3, 16)))
    gpu = draw(st.sampled_from(("a100", "h100", "b200", "gb200")))
    return Job(draw(st.sampled_from(SHAPES)), layout, layout.gpus, gpu, seq_len, rows * seq_len)


@settings(max_examples=60, deadline=None)
@given(jobs(), st.sampled_from(sorted(stacks())))
def test_parts_are_never_negative_and_add_up(job, name):
    step = step_time(job, CATALOG.machine(job.gpu), CONSTANTS, stack_named(name))
    assert tuple(step.parts) == PARTS
    assert all(seconds >= 0 and math.isfinite(seconds) for seconds in step.parts.values())
    assert step.seconds == pytest.approx(sum(step.parts.values()))
    assert (step.parts["bubble"] > 0) == (job.layout.pp > 1)
    assert (step.parts["tp"] > 0) == (job.layout.tp > 1)


def better(machine, what, factor):
    gpu, link, network = machine.gpu, machine.link, machine.network
    changed = {
        "flops": {"gpu": replace(gpu, bf16_tflops=gpu.bf16_tflops * factor, fp8_tflops=gpu.fp8_tflops * factor)},
        "memory": {"gpu": replace(gpu, memory_tb_s=gpu.memory_tb_s * factor)},
        "host": {"gpu": replace(gpu, host_gb_s=gpu.host_gb_s * factor)},
        "link": {"link": replace(link, gb_s=link.gb_s * factor)},
        "network": {"network": replace(network, gb_s=network.gb_s * factor)},
        "latency": {
            "link": replace(link, latency_us=link.latency_us / factor),
            "network": replace(network, latency_us=network.latency_us / factor),
        },
    }
    return replace(machine, **changed[what])


@settings(max_examples=120, deadline=None)
@given(
    jobs(),
    st.sampled_from(sorted(stacks())),
    st.sampled_from(("flops", "memory", "host", "link", "network", "latency")),
    st.floats(1.01, 8),
)
def test_better_hardware_is_never_slower(job, name, what, factor):
    machine, stack = CATALOG.machine(job.gpu), stack_named(name)
    before = step_time(job, machine, CONSTANTS, stack).seconds
    assert step_time(job, better(machine, what, factor), CONSTANTS, stack).seconds <= before * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(jobs())
def test_more_work_is_never_faster(job):
    machine = CATALOG.machine(job.gpu)
    before = step_time(job, machine, CONSTANTS).seconds
    twice = replace(job, tokens_per_step=2 * job.tokens_per_step)
    assert step_time(twice, machine, CONSTANTS).seconds > before
    full = replace(job, layout=replace(job.layout, recompute="full"))
    none = replace(job, layout=replace(job.layout, recompute="none"))
    # Equal where the host's launches or hidden traffic take longer than the computation.
    assert step_time(full, machine, CONSTANTS).seconds >= step_time(none, machine, CONSTANTS).seconds * (1 - 1e-9)


def test_one_gpu_with_free_memory_traffic_is_the_roofline_of_its_products_and_attention():
    job = Job(shape_named("8b"), Layout(), 1, "h100", 8192, 8192)
    machine = CATALOG.machine("h100")
    ideal = replace(
        CONSTANTS, gemm_best={"hopper-bf16": 1.0, "other-bf16": 1.0}, gemm_bf16=1.0, gemm_ramp=0.0, fused=0.0,
        attention_rate={"cudnn": 1.0}, attention_ramp=0.0, stacks={},
    )  # fmt: skip
    fast = replace(machine, gpu=replace(machine.gpu, memory_tb_s=1e6))
    counted = job.shape.flops_per_token(8192)
    # Attention's backward pass has five products to the forward pass' two, of which the causal count takes four.
    attention = counted["full"] - counted["causal"]
    flops = counted["causal"] + attention / 6
    assert step_time(job, fast, ideal).seconds == pytest.approx(8192 * flops / machine.gpu.peak("bf16"), rel=1e-3)


def test_a_small_product_is_bound_by_memory():
    job = Job(Shape(1, 8192, 8192, 64, 64, 128), Layout(), 1, "h100", 16, 16)
    machine = CATALOG.machine("h100")
    slower = replace(machine, gpu=replace(machine.gpu, memory_tb_s=machine.gpu.memory_tb_s / 2))
    one, two = (step_time(job, each, CONSTANTS).parts["gemm"] for each in (machine, slower))
    assert two == pytest.approx(2 * one, rel=0.05)


def makespan(pp, vpp, micro, split):
    """Time of the schedule that training runs, with a forward pass of 1 and a backward pass of 2."""
    plans = [list(rank) for rank in make_schedule(pp, vpp, micro, split)]
    done, free = {}, [0] * pp
    while any(plans):
        for rank, plan in enumerate(plans):
            if not plan:
                continue
            action = plan[0]
            key = (action.kind, action.stage, action.micro)
            if action.kind == "forward":
                needs = ("forward", action.stage - 1, action.micro) if action.stage else None
            elif action.kind == "weights" or action.stage == pp * vpp - 1:
                needs = ("forward", action.stage, action.micro)
            else:
                needs = ("backward", action.stage + 1, action.micro)
            if needs is not None and needs not in done:
                continue
            length = 2 if action.kind == "backward" and not split else 1
            done[key] = free[rank] = max(free[rank], done.get(needs, 0)) + length
            plan.pop(0)
    return max(free)


@pytest.mark.parametrize(
    "pp, vpp, micro", [(2, 1, 4), (4, 1, 4), (4, 1, 16), (8, 1, 32), (4, 2, 8), (4, 4, 16), (8, 2, 16), (8, 4, 4)]
)
@pytest.mark.parametrize("split", [False, True])
def test_the_bubble_is_that_of_the_schedule(pp, vpp, micro, split):
    if split and (vpp > 1 or micro < pp):
        pytest.skip("training has no such schedule")
    schedule = "zero-bubble" if split else "interleaved" if vpp > 1 else "1f1b"
    layout = Layout(pp=pp, vpp=vpp, schedule=schedule)
    job = Job(Shape(64, 64, 64, 1, 1, 64), layout, pp, "h100", 64, 64 * micro)
    formula = 3 * vpp * (micro + idle(job, micro))
    assert formula == pytest.approx(makespan(pp, vpp, micro, split), rel=0.06)


def test_the_layers_of_405b_leave_the_ends_one_less():
    job = Job(shape_named("405b"), Layout(pp=16, vpp=8, schedule="interleaved"), 16, "h100", 8192, 8192 * 16)
    counts = stage_layers(job, stack_named(None))
    assert (sum(counts), counts[0], counts[-1], set(counts[1:-1])) == (126, 0, 0, {1})


TABLE_4 = {(8192, 1, 8192): 430, (16_384, 1, 8192): 400, (16_384, 16, 131_072): 380}


def test_table_4_of_the_report():
    """Of which the constants have seen nothing (Llama 3 report, Table 4; FLOPs counted causal)."""
    seen = set(CONSTANTS.origin["rows"])
    assert seen
    assert all(name.startswith("train-") for name in seen)
    found = {}
    for (gpus, cp, seq_len), measured in TABLE_4.items():
        request = Request(shape_named("405b"), gpus, "h100", seq_len, 16_777_216, tp=8, cp=cp, pp=16, micro_batch=1)
        for system in (None, "llama3-pods"):
            best = fastest(request.jobs(), CATALOG.machine("h100", system), CONSTANTS, stack_named(None))
            value = found[gpus, cp] = best.as_json()["tflops_per_gpu"]["causal"]
            assert value == pytest.approx(measured, rel=0.05)
    assert 1 - found[16_384, 1] / found[8192, 1] == pytest.approx(0.07, abs=0.025)


def test_intervals_are_wider_where_the_fit_has_seen_nothing():
    h100, a100 = (Job(shape_named("8b"), Layout(dp_shard=8), 8, gpu, 8192, 8192 * 8) for gpu in ("h100", "a100"))
    known = predict(h100, CATALOG.machine("h100"), CONSTANTS).width
    assert predict(h100, CATALOG.machine("h100"), CONSTANTS, known_stack=False).width > known
    assert predict(a100, CATALOG.machine("a100"), CONSTANTS).width > known
    found = predict(h100, CATALOG.machine("h100"), CONSTANTS).as_json()
    rate = found["tokens_per_s_per_gpu"]
    assert rate["low"] < rate["value"] < rate["high"]
    assert found["step_seconds"] == pytest.approx(8192 / rate["value"])


def test_constants_survive_their_file(tmp_path):
    path = tmp_path / "constants.json"
    path.write_text(constants_text(CONSTANTS))
    assert read_constants(path) == CONSTANTS
    path.write_text("{}")
    with pytest.raises(InputError):
        read_constants(path)
