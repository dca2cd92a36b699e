"""Layouts that cannot be are refused before anything is allocated, naming keys and the nearest that can."""

import pytest

from herdlm.base.errors import InputError
from herdlm.model.config import ModelConfig
from herdlm.parallel.config import ParallelConfig, Sizes, find_problem, sizes_for, split_layers
from herdlm.parallel.layout import Layout

SHAPE = dict(vocab_size=512, dim=64, layers=8, heads=8, kv_heads=4, ffn_dim=96)


def sizes(layout, world=8, seq_len=256, **changes):
    return sizes_for(ParallelConfig(**layout), world, ModelConfig(**(SHAPE | changes)), seq_len)


def test_what_is_left_is_sharded():
    assert sizes(dict(tp=2, pp=2)) == Sizes(tp=2, cp=1, pp=2, dp_replicate=1, dp_shard=2)
    assert sizes(dict(dp_replicate=2)).dp_shard == 4
    assert sizes({}, world=1) == Sizes(1, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("layout", "changes", "told"),
    [
        (dict(tp=3), {}, ["parallel.tp x cp x pp", "there are 8 processes"]),
        (dict(dp_shard=4), {}, ["is 4, but there are 8 processes"]),
        (dict(dp_shard=0), {}, ["parallel.dp_shard is 0"]),
        (dict(tp=16), {}, ["there are 8 processes"]),
        (dict(tp=8), {}, ["model.kv_heads 4", "parallel.tp 8", "tp=4"]),
        (dict(tp=2), dict(ffn_dim=97), ["model.ffn_dim 97", "parallel.tp 2", "tp=1"]),
        (
            dict(tp=2, cp=2),
            dict(vocab_size=511, dim=66, heads=2, kv_heads=2, head_dim=32),
            ["model.vocab_size 511", "model.dim"],
        ),
        (dict(tp=4), dict(vocab_size=5), ["model.vocab_size 5", "parallel.tp 4"]),
        (dict(cp=8), dict(seq_len=40), ["seq_len 40", "2 x parallel.cp x parallel.tp = 16"]),
        (dict(tp=4), dict(seq_len=42), ["seq_len 42", "parallel.tp = 4"]),
        (dict(pp=8), dict(layers=6), ["model.layers 6", "8 stages", "pp=4"]),
        (dict(pp=2), dict(tied_embeddings=True), ["model.tied_embeddings", "parallel.pp 2", "pp=1"]),
        (dict(pp=2, pipeline_schedule="interleaved"), {}, ["pipeline_schedule 'interleaved'", "stages_per_rank 1"]),
        (dict(pp=2, stages_per_rank=2), {}, ["pipeline_schedule '1f1b'", "stages_per_rank 2"]),
        (dict(pp=2, pipeline_schedule="zero-bubble", reshard_after_forward=True), {}, ["zero-bubble", "lost"]),
        (dict(pp=2, pipeline_schedule="zero-bubble", compile=True), {}, ["zero-bubble", "compile"]),
        (dict(pipeline_schedule="zero-bubble"), {}, ["need parallel.pp above 1"]),
        (dict(pp=2, layers_per_stage=[4, 5]), {}, ["layers_per_stage [4, 5]", "model.layers 8"]),
        (dict(compile=True, activation_checkpointing="selective"), {}, ["parallel.compile", "selective"]),
    ],
)
def test_impossible_layouts_are_refused_by_name(layout, changes, told):
    seq_len = changes.pop("seq_len", 256)
    with pytest.raises(InputError) as refused:
        sizes(layout, seq_len=seq_len, **changes)
    for part in told:
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_layouts_that_are_named_do_work():
    config = ParallelConfig(tp=8)
    with pytest.raises(InputError) as refused:
        sizes_for(config, 8, ModelConfig(**SHAPE), 256)
    named = refused.value.remedy.removeprefix("Layouts that work: ").split("; ")
    assert named[0] == "tp=4, cp=1, pp=1, dp_replicate=1, dp_shard=2"  # nearest first
    for text in named:
        layout = {key: int(value) for key, value in (pair.split("=") for pair in text.split(", "))}
        assert find_problem(ParallelConfig(**layout), Sizes(**layout), 8, ModelConfig(**SHAPE), 256) is None


def test_a_layout_of_the_reports_size_is_found_at_once():
    big = ModelConfig(vocab_size=128_256, dim=16384, layers=126, heads=128, kv_heads=8, ffn_dim=53248)
    got = sizes_for(ParallelConfig(tp=8, cp=16, pp=16), 16384, big, 131_072)
    assert got == Sizes(tp=8, cp=16, pp=16, dp_replicate=1, dp_shard=8)
    with pytest.raises(InputError, match="kv_heads 8 is not a multiple of parallel.tp 16. Layouts that work: tp=8"):
        sizes_for(ParallelConfig(tp=16, pp=16), 16384, big, 8192)


def test_first_and_last_stage_hold_one_layer_less():
    assert [len(layers) for layers in split_layers(126, 16)] == [7, *[8] * 14, 7]
    assert [len(layers) for layers in split_layers(6, 4)] == [1, 2, 2, 1]
    assert [len(layers) for layers in split_layers(9, 4)] == [2, 3, 3, 1]
    assert [len(layers) for layers in split_layers(4, 4)] == [1, 1, 1, 1]
    for layers in range(1, 40):
        for stages in range(1, layers + 1):
            split = split_layers(layers, stages)
            assert [i for stage in split for i in stage] == list(range(layers))
            assert max(map(len, split)) - min(map(len, split)) <= 2
    assert split_layers(5, 2, (4, 1)) == [range(4), range(4, 5)]


def test_a_layout_needs_processes():
    with pytest.raises(InputError, match="no|none"):
        Layout.make(ParallelConfig(), ModelConfig(**SHAPE))
