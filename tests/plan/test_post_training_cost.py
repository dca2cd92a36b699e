"""Costs of post-training: FLOPs by torch's counter and by sums over tokens, tokens by hand, memory of a real model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from herdlm.base.errors import InputError
from herdlm.model.attention import DocumentAttention
from herdlm.parallel.config import ParallelConfig, Sizes
from herdlm.plan import flops
from herdlm.plan.activations import LayerPass, Widths
from herdlm.plan.engines import engine, smallest_engine
from herdlm.plan.job import Shape
from herdlm.plan.memory import PUBLISHED, Node
from herdlm.plan.stage_costs import Assumptions, cluster_of
from herdlm.plan.training_memory import training_memory
from herdlm.recipe import read_recipe
from herdlm.run.post_training import post_training, teaching
from herdlm.run.post_training_cost import post_training_cost
from tests.conftest import small_model
from tests.run.conftest import ROOT, herdlm

RECIPES = ROOT / "recipes"
LLAMAS = ("8b", "70b", "405b")
PROMPT, ANSWER = 536, 310


def described(name, *keys, gpu="H200", **more):
    recipe = read_recipe(RECIPES / f"llama3.1-{name}.toml", keys)
    return post_training_cost(recipe, cluster_of(gpu), Assumptions(), **more)


def stages_of_round(found, number):
    return {stage["stage"].removeprefix(f"round-{number}-"): stage for stage in found["rounds"][number - 1]["stages"]}


def read(model, tokens):
    """Hidden states of one document."""
    places = torch.arange(tokens)[None]
    return model(torch.zeros_like(places), places, DocumentAttention(torch.zeros_like(places)))


# FLOPs


def test_products_are_those_that_torch_counts():
    model = small_model(layers=3, dim=64, heads=8, kv_heads=2, ffn_dim=96)
    with FlopCounterMode(display=False) as counter:
        model.logits(read(model, 64)[:, -1])  # of the last token only, as when a prompt is read
    attention = 3 * (4 * 64 * 64) * 64 // 2  # causal; torch does not count the kernel of a CPU
    assert flops.prefill(model.config, 64) == counter.get_flop_counts()["Global"][torch.ops.aten.mm] + attention


@pytest.mark.parametrize("size", PUBLISHED)
def test_reading_and_writing_is_the_sum_over_tokens(size):
    model = PUBLISHED[size]
    each = 4 * model.layers * model.dim  # heads x head size is the dimension in all Llamas
    head = model.vocab_size * model.dim
    matrices = model.parameters - 2 * head - (2 * model.layers + 1) * model.dim

    def token(before, logits):
        return 2 * matrices + each * (before + 0.5) + 2 * head * logits

    prompt = sum(token(t, t == PROMPT - 1) for t in range(PROMPT))
    answer = sum(token(PROMPT + t, True) for t in range(ANSWER))
    unread = sum(token(PROMPT + t, False) for t in range(ANSWER))
    assert flops.prefill(model, PROMPT) == pytest.approx(prompt, rel=1e-12)
    assert flops.decode(model, PROMPT, ANSWER) == pytest.approx(answer, rel=1e-12)
    scored = sum(token(t, False) for t in range(PROMPT)) + 20 * unread
    assert flops.read_answers(model, PROMPT, ANSWER, 20) == pytest.approx(scored, rel=1e-12)


@pytest.mark.parametrize("size", PUBLISHED)
def test_training_is_six_times_weights_and_tokens_within_attention(size):
    model, tokens, document = PUBLISHED[size], 1_000_000, 846
    used = model.parameters - model.vocab_size * model.dim  # the embedding is looked up
    attention = tokens * 6 * model.layers * model.dim * document
    found = flops.training(model, tokens, document)
    assert found == pytest.approx(6 * used * tokens + attention, rel=1e-3)
    assert attention < 0.1 * found
    assert flops.forward(model, tokens, document) == pytest.approx(found / 3)


# Recipes


@pytest.mark.parametrize("name", LLAMAS)
def test_recipes_carry_the_reports_post_training(name):
    align = read_recipe(RECIPES / f"llama3.1-{name}.toml").align
    assert align.rounds == 6 and not align.uses_bank and align.preferences is None
    assert 10 <= align.rejection.samples <= 30
    assert align.sft.train.peak_lr == align.dpo.train.peak_lr == 1e-5
    assert 8500 <= align.sft.steps <= 9000
    assert (align.dpo.beta, align.dpo.nll_weight, align.dpo.mask_formatting) == (0.1, 0.2, True)
    shares = {name: part.share for name, part in align.mix.parts.items()}
    assert shares == {
        "general-english": 0.5266,
        "code": 0.1489,
        "multilingual": 0.0301,
        "exam-like": 0.0814,
        "reasoning-and-tools": 0.2119,
        "long-context": 0.0011,
    }
    assert align.quality is not None and align.average.variants and align.gate.tasks


@pytest.mark.parametrize(("name", "gpu"), [("8b", "H100"), ("70b", "H100"), ("405b", "H200"), ("8b", "A100")])
def test_layouts_and_engines_of_the_recipes_fit(name, gpu):
    found = described(name, gpu=gpu)
    assert found["problems"] == []
    usable = cluster_of(gpu).node.usable
    world = {"8b": 8, "70b": 64, "405b": 512}[name]
    stages = [*found["before"]["stages"], *found["rounds"][-1]["stages"], *found["teaching"]["stages"]]
    trained = [stage for stage in stages if stage["layout"]]
    drawn = [stage for stage in stages if stage["engine"]]
    assert len(trained) == 1 + 1 + 6 + 1 and len(drawn) == 1 + 3 + 2
    for stage in trained:
        sizes = stage["layout"]
        assert sizes["tp"] * sizes["cp"] * sizes["pp"] * sizes["dp_replicate"] * sizes["dp_shard"] == world
        assert stage["devices"] == world
    for stage in drawn:
        engines = stage["engine"]
        assert engines["tensor_parallel"] * engines["pipeline_parallel"] * engines["count"] == stage["devices"] == world
    for stage in [*trained, *drawn]:
        assert 0 < stage["memory"]["sum"] == sum(v for k, v in stage["memory"].items() if k != "sum") <= usable


@pytest.mark.parametrize("name", LLAMAS)
def test_the_stages_are_those_of_a_run_in_its_order(name):
    recipe, found = read_recipe(RECIPES / f"llama3.1-{name}.toml"), described(name)
    told = [*found["before"]["stages"], *(stage for part in found["rounds"] for stage in part["stages"])]
    assert [stage["stage"] for stage in told] == [stage.name for stage in post_training(recipe)]
    assert [stage["stage"] for stage in found["teaching"]["stages"]] == [stage.name for stage in teaching(recipe)]
    unknown = [stage["stage"] for stage in told if "cost not estimated" in stage["notes"]]
    assert unknown == []


def test_tokens_of_a_round_by_hand():
    found = described("8b")
    last = stages_of_round(found, 6)
    samples = last["samples"]
    assert (samples["prompts"], samples["samples"]) == (500_000, 20)
    assert samples["drawn_tokens"] == 500_000 * 20 * 310 == 3_100_000_000
    assert samples["drawn_at_most"] == 500_000 * 20 * 2048
    assert last["sft"]["trained_tokens"] == 8500 * 8 * 65_536
    assert last["dpo"]["pairs"] == 2 * 500_000  # this round's and the last one's
    assert stages_of_round(found, 1)["dpo"]["pairs"] == 500_000
    assert last["dpo"]["trained_tokens"] == 1_000_000 * 2 * (536 + 310)
    assert last["dpo"]["steps"] == 7813  # pairs / 128, rounded up
    assert last["gate"]["samples"] == 8  # the incumbent, SFT, three chains, and three averages
    assert last["gate"]["prompts"] == 2000


def test_flops_of_a_round_are_those_of_its_parts():
    found, model = described("405b"), PUBLISHED["405B"]
    last = stages_of_round(found, 6)
    used = model.parameters - model.vocab_size * model.dim
    tokens = 9000 * 16 * 65_536
    assert last["sft"]["flops"]["train"] == pytest.approx(6 * used * tokens, rel=0.05)
    assert last["sft"]["flops"]["train"] > 6 * used * tokens
    assert last["samples"]["flops"]["decode"] == pytest.approx(2 * used * 3.1e9, rel=0.05)
    assert last["dpo"]["flops"]["reference"] * 3 == pytest.approx(last["dpo"]["flops"]["train"])
    total = found["rounds"][-1]["total"]
    assert total["flops_sum"] == sum(sum(stage["flops"].values()) for stage in last.values())
    assert total["seconds"] == pytest.approx(sum(stage["seconds"] or 0 for stage in last.values()))
    every = [part["total"]["flops_sum"] for part in (found["before"], *found["rounds"], found["teaching"])]
    assert found["total"]["flops_sum"] == sum(every)


def test_a_layout_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="kv_heads 8 is not a multiple of parallel.tp 16"):
        described("8b", "align.parallel.tp=16")
    with pytest.raises(InputError, match="is 8, but there are 4 processes"):
        described("8b", "compute.processes=4")
    with pytest.raises(InputError, match="not a multiple of align.tensor_parallel 3"):
        described("8b", "align.tensor_parallel=3")
    assert described("8b", "align.parallel.dp_shard=-1", processes=16)["rounds"][0]["stages"][2]["devices"] == 16


def test_what_does_not_fit_the_memory_is_named_with_a_remedy():
    small = described("405b", gpu="H100")["problems"]
    assert any(problem.endswith("No engine on one node does: take GPUs with more memory (--gpu)") for problem in small)
    few = described("405b", "align.tensor_parallel=4")["problems"]
    assert any("round-6-samples" in problem and "align.tensor_parallel = 8 fits" in problem for problem in few)
    wide = described("70b", "align.parallel.tp=1", "align.parallel.cp=1", "align.parallel.dp_shard=64")["problems"]
    assert any("round-6-sft" in problem and "align.parallel" in problem for problem in wide)


def test_files_are_listed_with_what_they_hold(tmp_path):
    (tmp_path / "chats.jsonl").write_text('{"messages": []}\n' * 100)
    keys = ["align.synth=false", f"align.data.dialogs=['{tmp_path}/chats.jsonl:3', '{tmp_path}/none.jsonl']"]
    found = described("8b", *keys, "align.sft.steps=false", "align.sft.epochs=2")
    files = {Path(file["path"]).name: file for file in found["files"]}
    assert (files["chats.jsonl"]["exists"], files["chats.jsonl"]["rows"], files["chats.jsonl"]["weight"]) == (
        True,
        100,
        3,
    )
    assert (files["none.jsonl"]["exists"], files["none.jsonl"]["key"]) == (False, "align.data.dialogs")
    assert "align.gate.data" in {file["key"] for file in found["files"]}
    seeds = found["before"]["stages"][1]
    assert seeds["dialogs"] == 300 and seeds["trained_tokens"] == 300 * 846
    sft = stages_of_round(found, 1)["sft"]
    assert sft["dialogs"] == 2 * 300 + 500_000 and sft["trained_tokens"] == 2 * 846 * sft["dialogs"]


def test_lengths_stay_within_a_recipes_limits():
    recipe = read_recipe(RECIPES / "tiny.toml")
    found = post_training_cost(recipe, cluster_of("H200"), Assumptions())
    assert found["assumed"]["answer_tokens"] == 32
    assert found["assumed"]["prompt_tokens"] + 32 <= min(recipe.align.seq_lens)
    with pytest.raises(InputError, match="leave no room for prompts"):
        short = read_recipe(RECIPES / "tiny.toml", ["align.rejection.max_answer_tokens=4096"])
        post_training_cost(short, cluster_of("H200"), Assumptions())


# Engines


def test_an_engines_memory_is_weights_and_caches():
    plan = engine(PUBLISHED["8B"], Node(8, 80), 2048, 1, 1)
    assert plan.weights == 2 * PUBLISHED["8B"].parameters
    assert plan.cache == 2048 * 131_072  # bytes of keys and values for each token of the 8B
    assert plan.sequences == int((72e9 - plan.weights) // plan.cache) and plan.memory <= 72e9
    assert engine(PUBLISHED["8B"], Node(8, 80), 512, 1, 1).sequences == 256  # as many as an engine takes
    halves = engine(PUBLISHED["8B"], Node(8, 80), 2048, 1, 2)
    assert halves.cache == plan.cache / 2 and halves.weights == pytest.approx(plan.weights / 2, rel=0.01)


def test_the_smallest_engine_that_is_enough():
    sizes = {name: smallest_engine(model, Node(8, 80), 2584) for name, model in PUBLISHED.items()}
    assert (sizes["8B"].gpus, sizes["70B"].gpus, sizes["405B"].sequences) == (1, 4, 0)
    assert smallest_engine(PUBLISHED["405B"], Node(8, 141), 2584).tensor_parallel == 8


# Memory of training


def test_activations_are_what_the_layers_keep():
    model = small_model(layers=6, dim=64, heads=8, kv_heads=2, ffn_dim=192, max_seq_len=512)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(value):
        if value.untyped_storage().data_ptr() not in weights:
            kept[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        read(model, 512)
    sizes = [value.untyped_storage().nbytes() for value in kept.values() if value.is_floating_point()]
    layer = LayerPass(Shape.of(model.config), 1, 1, 512, 512, Widths(4, 4), device="cpu")
    assert sum(sizes) == pytest.approx(6 * layer.kept("none"), rel=0.08)
    values = [layer.kept(policy) for policy in ("full", "selective", "none")]
    assert values == sorted(values)


def test_state_and_gathered_weights_of_a_layout():
    model = small_model(layers=4, dim=64, heads=8, kv_heads=4, ffn_dim=96).config

    def memory(sizes, micro_batches=4, precision="bfloat16", **keys):
        config = ParallelConfig(**keys)
        return training_memory(model, config, sizes, row_tokens=256, micro_batches=micro_batches, precision=precision)

    alone = memory(Sizes(1, 1, 1, 1, 1), precision="float32")
    assert alone["weights"] + alone["gradients"] + alone["optimizer"] == 16 * model.parameters
    assert alone["gathered"] == alone["accumulated"] == 0
    shards = memory(Sizes(1, 1, 1, 1, 4))
    assert shards["weights"] * 4 == alone["weights"]
    assert (shards["gathered"], shards["accumulated"]) == (2 * model.parameters, 4 * model.parameters)
    once = memory(Sizes(1, 1, 1, 1, 4), micro_batches=1, reshard_after_forward=True)
    assert once["gathered"] < shards["gathered"]
    assert memory(Sizes(1, 1, 1, 1, 4), micro_batches=1)["accumulated"] < shards["accumulated"]
    pipeline = memory(Sizes(1, 1, 2, 1, 1), micro_batches=1)
    assert memory(Sizes(1, 1, 2, 1, 1), micro_batches=2)["activations"] > pipeline["activations"]
    many, two = (memory(Sizes(1, 1, 2, 1, 1), micro_batches=count) for count in (9, 2))
    assert many["activations"] == two["activations"]


# The command


def test_the_command_prints_files_stages_and_sums():
    done = herdlm("describe", "recipes/llama3.1-405b.toml", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["post_training"] == json.loads(json.dumps(described("405b"))) and "405b" in found["models"]
    text = herdlm("describe", "recipes/llama3.1-405b.toml").stdout
    assert "of which 17 are missing" in text and "align.data.dialogs" in text
    assert "512 processes, tp 8 cp 4 pp 8 dp_replicate 1 dp_shard 2" in text
    assert "500,000 prompts x 20 answers; 3.1 G tokens drawn" in text
    done = herdlm("describe", "recipes/llama3.1-405b.toml", "--gpu", "H100")
    assert done.returncode == 2 and "round-6-samples: 405b needs" in done.stderr
    assert herdlm("describe", "recipes/llama3.1-8b.toml", "--gpu", "T4").returncode == 2


def test_other_lengths_change_the_tokens():
    found = post_training_cost(
        read_recipe(RECIPES / "llama3.1-8b.toml"), cluster_of("H200"), replace(Assumptions(), answer_tokens=100)
    )
    assert stages_of_round(found, 1)["samples"]["drawn_tokens"] == 500_000 * 20 * 100


@pytest.mark.parametrize("name", LLAMAS)
def test_each_stage_comes_after_what_it_needs(name):
    found = described(name)
    made: set[str] = set()
    parts = [found["before"], *found["rounds"], found["teaching"]]
    for stage in (stage for part in parts for stage in part["stages"]):  # as the loop of docs/rounds.md takes them
        assert {read for read in stage["reads"] if not read.startswith("pretrain-")} <= made
        made.add(stage["stage"])
