"""Will it fit: published shapes against sizes reckoned by hand, the files that are written, and borders of the node."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.folder import quantize_folder
from herdlm.model.hf import save_folder
from herdlm.model.weights import open_weights
from herdlm.plan.memory import PUBLISHED, Node, both_precisions, fit, fit_table, lines, named_models
from herdlm.recipe import read_recipe
from tests.conftest import small_model

RECIPES = Path(__file__).parents[2] / "recipes"
CONFIG = Fp8Config()

# Reckoned by hand. BF16: two bytes for each of the 8,030,261,248, 70,553,706,496 and 405,853,388,800 parameters that
# the checkpoints have. FP8: one byte less for 3 * dim * ffn_dim weights in all layers but two, two bytes more for each
# of their rows, 2 * ffn_dim + dim.
WEIGHTS = {
    ("8B", "BF16"): 16_060_522_496,
    ("8B", "FP8"): 16_060_522_496 - 30 * 3 * 4096 * 14_336 + 30 * 2 * (2 * 14_336 + 4096),
    ("70B", "BF16"): 141_107_412_992,
    ("70B", "FP8"): 141_107_412_992 - 78 * 3 * 8192 * 28_672 + 78 * 2 * (2 * 28_672 + 8192),
    ("405B", "BF16"): 811_706_777_600,
    ("405B", "FP8"): 487_198_785_536,
}
# 2 (keys and values) * layers * 8 heads * 128 channels * 2 bytes
CACHE_PER_TOKEN = {"8B": 131_072, "70B": 327_680, "405B": 516_096}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_of_published_models(name):
    rows = both_precisions(name, PUBLISHED[name], Node(), context=8192, concurrency=1, config=CONFIG)
    assert {(row.model, row.precision): row.weights for row in rows} == {
        key: size for key, size in WEIGHTS.items() if key[0] == name
    }
    assert {row.cache_per_token for row in rows} == {CACHE_PER_TOKEN[name]}


def test_405b_fits_one_node_in_fp8_alone():
    bf16, fp8 = both_precisions("405B", PUBLISHED["405B"], Node(), context=8192, concurrency=16, config=CONFIG)
    assert not bf16.weights_fit and not bf16.fits and bf16.most_sequences == 0
    # 8 * 72 GB - 487.2 GB (norms whole on each GPU) = 88.8 GB; a sequence takes 8,192 * 516,096 bytes = 4.228 GB
    assert fp8.fits and fp8.most_sequences == 20
    two_nodes = fit("405B", PUBLISHED["405B"], Node(gpus=16), context=8192, concurrency=16)
    assert two_nodes.fits
    # 16 GPUs share 8 key/value heads: each head stands on two GPUs, so the cache takes twice the memory
    assert two_nodes.cache_per_token == 2 * CACHE_PER_TOKEN["405B"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_are_those_of_the_recipes(name):
    recipe = read_recipe(RECIPES / f"llama3.1-{name.lower()}.toml")
    theirs = recipe.model_config_of(recipe.herd.flagship)
    shape = {"vocab_size", "dim", "layers", "heads", "kv_heads", "ffn_dim", "max_seq_len", "tied_embeddings"}
    assert PUBLISHED[name].model_dump(include=shape) == theirs.model_dump(include=shape)
    assert PUBLISHED[name].parameters == theirs.parameters


@pytest.mark.parametrize(
    "changes", [{}, {"tied_embeddings": True}, {"attention_bias": True, "mlp_bias": True}], ids=str
)
@pytest.mark.parametrize("config", [CONFIG, Fp8Config(attention=True, skip_first_layers=0, matrices=("down",))])
def test_sizes_are_those_of_the_files(tmp_path, changes, config):
    model = small_model(layers=4, **changes)
    save_folder(model, tmp_path / "m", dtype=torch.bfloat16)
    quantize_folder(tmp_path / "m", tmp_path / "q", config)
    rows = both_precisions("m", model.config, Node(gpus=1), context=8, concurrency=1, config=config)
    for row, folder in zip(rows, ("m", "q"), strict=True):
        stored = open_weights(tmp_path / folder).values()
        assert row.weights == row.weights_per_gpu == sum(t.count * t.dtype.itemsize for t in stored)


def test_a_model_that_few_gpus_can_share_stands_there_several_times():
    model = small_model(layers=4, max_seq_len=256).config  # four query heads
    one = fit("m", model, Node(gpus=4, gigabytes=0.1), context=256, concurrency=1)
    two = fit("m", model, Node(gpus=8, gigabytes=0.1), context=256, concurrency=1)
    assert (one.tensor_parallel, one.copies, two.tensor_parallel, two.copies) == (4, 1, 4, 2)
    assert two.weights_per_gpu == one.weights_per_gpu and two.most_sequences == 2 * one.most_sequences > 0
    odd = fit("8B", PUBLISHED["8B"], Node(gpus=3), context=8192, concurrency=1)
    # 32 heads cannot be shared by three: three copies, each beside 72 - 16.06 GB of cache
    assert (odd.tensor_parallel, odd.copies) == (1, 3) and odd.weights_per_gpu == WEIGHTS["8B", "BF16"]
    assert odd.most_sequences == 3 * int((72e9 - 16_060_522_496) // (8192 * CACHE_PER_TOKEN["8B"]))


@settings(max_examples=60, deadline=None)
@given(
    gpus=st.sampled_from([1, 2, 4, 8, 16]),
    gigabytes=st.floats(1, 400),
    context=st.integers(1, 131_072),
    name=st.sampled_from(sorted(PUBLISHED)),
)
def test_the_most_sequences_fit_and_one_more_does_not(gpus, gigabytes, context, name):
    node, model = Node(gpus=gpus, gigabytes=gigabytes), PUBLISHED[name]
    for row in both_precisions(name, model, node, context=context, concurrency=1, config=CONFIG):
        assert row.weights <= row.weights_per_gpu * row.tensor_parallel
        assert row.fits == (row.most_sequences >= 1) and row.fits <= row.weights_fit
        if row.most_sequences:
            fp8 = (
                {}
                if row.precision == "BF16"
                else {"fp8": {f"model.layers.{i}.{m}" for i in range(1, model.layers - 1) for m in CONFIG.modules()}}
            )
            at_most = fit(name, model, node, context=context, concurrency=row.most_sequences, **fp8)
            more = fit(name, model, node, context=context, concurrency=row.most_sequences + 1, **fp8)
            assert at_most.fits and not more.fits


def test_folders_runs_and_recipes_are_told(tmp_path):
    save_folder(small_model(layers=4), tmp_path / "m", dtype=torch.bfloat16)
    quantize_folder(tmp_path / "m", tmp_path / "q", CONFIG)
    named = named_models([tmp_path / "m", tmp_path / "q", RECIPES / "llama3.1-405b.toml"])
    assert [name for name, _ in named] == ["m", "q", "405b", "8b"]
    assert named[0][1] == named[1][1]
    assert [name for name, _ in named_models([])] == ["8B", "70B", "405B"]
    table = fit_table(named, Node(gpus=2), context=8192, concurrency=4, config=CONFIG)
    assert [row["context"] for row in table["rows"]][:2] == [256, 256]  # all that the small model knows
    text = lines(table)
    assert len(text) == 2 + 8 and "405b" in text[-3]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Node(gpus=0), "has no memory"),
        (lambda: Node(reserve=1.0), "reserve = 1.0"),
        (lambda: fit("8B", PUBLISHED["8B"], Node(), context=0, concurrency=1), "positive counts"),
        (lambda: fit("8B", PUBLISHED["8B"], Node(), context=200_000, concurrency=1), "up to 131,072"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()
