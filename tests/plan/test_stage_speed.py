"""Times of post-training: those of the planner's models, and a batch of policy gradient in its parts."""

from __future__ import annotations

import pytest

from herdlm.align.defaults import MICRO_BATCH_TOKENS
from herdlm.base.errors import InputError
from herdlm.plan.constants import read_constants
from herdlm.plan.grpo import Batch, plan_grpo
from herdlm.plan.hardware import read_hardware
from herdlm.plan.job import Job, Layout, Shape
from herdlm.plan.memory import PUBLISHED
from herdlm.plan.models import shape_named
from herdlm.plan.request import Request
from herdlm.plan.serving.speed import Engine, serving_constants
from herdlm.plan.stage_costs import Assumptions, cluster_of
from herdlm.plan.step_time import step_time
from herdlm.recipe import read_recipe
from herdlm.run.post_training_cost import post_training_cost
from tests.run.conftest import ROOT

RECIPES = ROOT / "recipes"
PROMPT, ANSWER = 536, 310


def described(name, *keys, gpu="H200"):
    recipe = read_recipe(RECIPES / f"llama3.1-{name}.toml", keys)
    return post_training_cost(recipe, cluster_of(gpu), Assumptions())


def stages_of_round(found, number):
    return {stage["stage"].removeprefix(f"round-{number}-"): stage for stage in found["rounds"][number - 1]["stages"]}


def test_seconds_of_training_are_steps_of_the_time_model():
    sft = stages_of_round(described("8b", "align.parallel.activation_checkpointing='none'"), 6)["sft"]
    at_peak = sft["flops"]["train"] / (8 * 989.4e12)
    assert 0.25 < at_peak / sft["seconds"] < 0.6  # published utilization of 8B models on 8 GPUs
    again = stages_of_round(described("8b"), 6)["sft"]  # "layer" computes each layer's forward pass once more
    assert 1.2 < again["seconds"] / sft["seconds"] < 4 / 3
    config = read_recipe(RECIPES / "llama3.1-8b.toml").align.sft
    layout = {name: sft["layout"][name] for name in ("tp", "pp", "cp", "dp_shard", "dp_replicate")}
    assert config.seq_len == 65_536 and MICRO_BATCH_TOKENS <= 65_536  # a row at a time, which packs documents of 846
    tokens = -(-config.rows_per_step // 4) * 4 * 65_536
    job = Job(Shape.of(PUBLISHED["8B"]), Layout(**layout, micro_batch=64), 8, "h200", 1024, tokens)
    step = step_time(job, read_hardware().machine("h200"), read_constants())
    assert layout["dp_shard"] == 4 and sft["seconds"] == pytest.approx(sft["steps"] * step.seconds)


def test_seconds_of_drawing_are_those_of_an_engine():
    stage = stages_of_round(described("8b"), 6)["samples"]
    engine_plan, count = stage["engine"], stage["engine"]["count"]
    found = Engine(
        Shape.of(PUBLISHED["8B"]),
        read_hardware().machine("h200"),
        serving_constants(),
        read_constants(),
        engine_plan["tensor_parallel"],
        engine_plan["pipeline_parallel"],
    )
    answers = stage["prompts"] * stage["samples"]
    steps = answers * ANSWER / (count * engine_plan["sequences"])
    seconds = steps * found.decode(engine_plan["sequences"], PROMPT + ANSWER / 2)
    seconds += stage["prompts"] * found.prefill(PROMPT) / engine_plan["pipeline_parallel"] / count
    assert stage["seconds"] == pytest.approx(seconds)


@pytest.mark.parametrize("name", ["8b", "70b"])
def test_faster_gpus_take_less_time_for_every_stage(name):
    slow, fast = described(name, gpu="H200"), described(name, gpu="B200")
    pairs = [
        (a, b)
        for one, other in zip(slow["rounds"], fast["rounds"], strict=True)
        for a, b in zip(one["stages"], other["stages"], strict=True)
        if a["seconds"]
    ]
    assert len(pairs) > 6 and all(b["seconds"] < a["seconds"] for a, b in pairs)


def grpo(prompts=64, answer=1000, gpu="h100", **changes):
    request = Request(shape_named("8b"), 16, gpu, 4096, 4096 * 16, **changes)
    return plan_grpo(
        request, Batch(prompts, 8, 500, answer), read_hardware().machine(gpu), read_constants(), serving_constants()
    )


def test_a_batch_of_policy_gradient_is_the_sum_of_its_parts():
    found = grpo()
    parts = found["parts"]
    assert set(parts) == {"reading", "sampling", "weights", "training"} and min(parts.values()) > 0
    assert found["seconds"]["value"] == pytest.approx(sum(parts.values()))
    assert found["sampling_share"] + found["training_share"] + parts["weights"] / found["seconds"]["value"] == (
        pytest.approx(1)
    )
    assert found["tokens_trained"] == 64 * 8 * 1500 and found["rows"] * 4096 >= 64 * 8 * 1500
    # 32 answers of an engine at a time: 1,000 steps that read 16 GB of weights and their caches
    floor = 1000 * (2 * 7.5e9 + 32 * 1000 * 131_072) / 3.35e12
    assert floor < parts["sampling"] < 2.5 * floor
    longer = grpo(answer=2000)
    assert longer["sampling_share"] > found["sampling_share"]  # training grows as well, but not by steps of decoding
    more = grpo(prompts=128)
    assert found["parts"]["sampling"] < more["parts"]["sampling"] < 2 * found["parts"]["sampling"]


def test_a_sequence_that_fits_no_row_is_refused():
    with pytest.raises(InputError, match="exceed rows"):
        grpo(answer=4000)
