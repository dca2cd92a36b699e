"""Parameters, FLOPs and bytes from a recipe's numbers, held against the model itself and the report."""

import json
import subprocess
import sys

import pytest
import torch

from herdlm.base.errors import InputError
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Transformer
from herdlm.parallel.config import ParallelConfig, Sizes
from herdlm.plan.cost import describe, flops_per_token, stage_parameters, values_per_rank
from herdlm.recipe import Recipe, read_recipe
from herdlm.run.pipeline import stages_of
from tests.run.conftest import ROOT, herdlm

RECIPES = ROOT / "recipes"
REPORT = {"8b": 8_030_261_248, "70b": 70_553_706_496, "405b": 405_853_388_800}
LAYOUTS = {"8b": (512, 1, 1), "70b": (4096, 8, 4), "405b": (16_384, 8, 16)}


@pytest.mark.parametrize("size", REPORT)
def test_the_reports_models_have_the_reports_numbers(size):
    description = describe(read_recipe(RECIPES / f"llama3.1-{size}.toml").herd_job())
    model = description["models"][size]
    assert model["roles"] == ["flagship"]
    assert model["parameters"] == REPORT[size]
    assert model["state_bytes"]["total"] == {
        "weights": 4 * REPORT[size],
        "gradients": 4 * REPORT[size],
        "optimizer": 8 * REPORT[size],
        "sum": 16 * REPORT[size],
    }
    layout = model["layout"]
    assert (layout["processes"], layout["tp"], layout["pp"]) == LAYOUTS[size]
    assert model["precision"] == "bfloat16"
    assert model["peak_lr"] == {"8b": 3e-4, "70b": 1.5e-4, "405b": 8e-5}[size]
    assert model["tokens"] == pytest.approx(15.6e12, rel=1e-3)


def test_the_405bs_course_is_the_reports():
    description = describe(read_recipe(RECIPES / "llama3.1-405b.toml").herd_job())
    main = [part for part in description["timeline"] if part["kind"] == "main"]
    assert [(p["seq_len"], p["tokens_per_step"]) for p in main[:3]] == [(4096, 2**22), (8192, 2**23), (8192, 2**24)]
    assert main[1]["first_token"] == pytest.approx(252e6, rel=0.02)
    assert main[2]["first_token"] == pytest.approx(2.87e12, rel=1e-5)
    long = [part for part in description["timeline"] if part["kind"] == "long-context"]
    assert (len(long), long[0]["seq_len"] > 8192, long[-1]["seq_len"]) == (6, True, 131_072)
    assert sum(part["tokens"] for part in long) == pytest.approx(800e9, rel=0.01)
    assert description["timeline"][-1]["kind"] == "anneal"
    # The report: 3.8e25 FLOPs; with its long contexts and attention counted causal it is a little more.
    assert description["models"]["405b"]["flops"]["causal"] == pytest.approx(3.8e25, rel=0.06)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_every_recipe_is_complete_and_its_layouts_fit(name):
    recipe = read_recipe(RECIPES / f"{name}.toml")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe  # as a worker process gets it
    if recipe.pretrain is None:  # it begins at a folder that is not there
        return
    assert stages_of(recipe)[-1].name == "report"
    description = describe(recipe.herd_job())
    assert description["name"] == name
    assert sum(part["steps"] for part in description["timeline"]) == next(iter(description["models"].values()))["steps"]
    assert all(model["layout"]["processes"] >= 1 for model in description["models"].values())


@pytest.mark.parametrize(
    "changes",
    [{}, {"tied_embeddings": True}, {"attention_bias": True}, {"mlp_bias": True}, {"family": "qwen2"}],
    ids=str,
)
def test_the_weights_are_those_of_the_model(changes):
    config = ModelConfig(vocab_size=100, dim=48, layers=5, heads=6, kv_heads=2, ffn_dim=80, max_seq_len=64, **changes)
    with torch.device("meta"):
        model = Transformer(config)
    assert {p.name: p.shape for p in stage_parameters(config, range(5))} == {
        name: tuple(value.shape) for name, value in model.named_parameters()
    }
    assert values_per_rank(config, ParallelConfig(), Sizes(1, 1, 1, 1, 1)) == config.parameters


def test_a_ranks_share_is_what_its_layout_leaves_it():
    config = ModelConfig(vocab_size=128, dim=64, layers=6, heads=8, kv_heads=4, ffn_dim=96)
    norms = config.layers * 2 * 64 + 64

    def held(tp=1, cp=1, pp=1, replicate=1, shard=1, **keys):
        return values_per_rank(config, ParallelConfig(**keys), Sizes(tp, cp, pp, replicate, shard))

    assert held(shard=4) == held(shard=2, cp=2) == held(shard=4, replicate=3) == config.parameters // 4
    assert held(tp=4) == (config.parameters - norms) // 4 + norms
    first, middle = config.layer_parameters + 128 * 64, 2 * config.layer_parameters
    assert held(pp=4) == max(first + 64, middle)  # 1, 2, 2, 1 layers; the last has the norm and the head
    interleaved = held(pp=2, stages_per_rank=2)
    assert interleaved == max(first + middle, middle + first + 64)
    assert held(shard=48) > config.parameters / 48  # 64 rows over 48 ranks: two here, none there


def test_biases_are_cut_with_the_outputs_of_their_matrix():
    shape = dict(vocab_size=128, dim=64, layers=6, heads=8, kv_heads=4, ffn_dim=96)
    plain, biased = ModelConfig(**shape), ModelConfig(**shape, attention_bias=True, mlp_bias=True)
    tp4 = [values_per_rank(config, ParallelConfig(), Sizes(4, 1, 1, 1, 1)) for config in (plain, biased)]
    # q, k, v, gate and up in four parts; those of the outputs of o and down are whole on each rank.
    assert tp4[1] - tp4[0] == 6 * ((64 + 2 * 32 + 2 * 96) // 4 + 2 * 64)
    assert plain.flops_per_token(64) == biased.flops_per_token(64)


def test_flops_state_both_counts_of_attention():
    config = ModelConfig(vocab_size=128_256, dim=16_384, layers=126, heads=128, kv_heads=8, ffn_dim=53_248)
    flops = flops_per_token(config, 8192)
    attention = 126 * 16_384 * 8192
    norms = (2 * 126 + 1) * 16_384
    matrices = 6 * (405_853_388_800 - 128_256 * 16_384 - norms)
    assert flops == {"causal": matrices + 6 * attention, "full": matrices + 12 * attention}


def test_processes_fill_the_shards_a_layout_leaves_open():
    recipe = read_recipe(RECIPES / "1b.toml")
    alone, eight = (describe(recipe.herd_job(), n)["models"]["1b"] for n in (None, 8))
    assert (alone["layout"]["dp_shard"], eight["layout"]["dp_shard"]) == (1, 8)
    total = alone["state_bytes"]["total"]
    assert alone["state_bytes"]["per_rank"] == total == eight["state_bytes"]["total"]
    assert eight["state_bytes"]["per_rank"]["sum"] * 8 == total["sum"]
    with pytest.raises(InputError, match="there are 3 processes. Layouts that work"):
        describe(read_recipe(RECIPES / "1b.toml", ["parallel.dp_shard=2"]).herd_job(), 3)


def test_the_command_prints_json_and_text():
    done = herdlm("describe", "recipes/llama3.1-405b.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["models"]["405b"]["parameters"] == REPORT["405b"]
    text = herdlm("describe", "recipes/llama3.1-405b.toml").stdout
    assert "parameters      405,853,388,800" in text
    assert "16,384 processes: tp 8 cp 1 pp 16 dp_replicate 1 dp_shard 128" in text
    done = herdlm("describe", "recipes/llama3.1-405b.toml", "--set", "parallel.tp=3")
    assert done.returncode == 2
    assert "is not a multiple of parallel.tp 3" in done.stderr


def test_describing_needs_no_torch():
    code = (
        "import sys; from pathlib import Path; from herdlm.recipe import read_recipe;"
        "from herdlm.plan.cost import describe, lines;"
        "lines(describe(read_recipe(Path('recipes/llama3.1-405b.toml')).herd_job())); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
