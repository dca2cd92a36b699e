"""Losses, row losses and likeliest tokens of a model in any layout against those of the whole model."""

import pytest

from tests.parallel.processes import launch

INTERLEAVED = dict(pipeline_schedule="interleaved", stages_per_rank=2)
CASES = {
    "cp2 dp2": dict(layout=dict(cp=2)),
    "pp2 tp2": dict(layout=dict(pp=2, tp=2)),
    "pp2 dp2, interleaved, rows per micro-batch": dict(layout=dict(pp=2, rows_per_micro_batch=1) | INTERLEAVED),
}
MORE = {
    "dp4": dict(layout={}),
    "tp2 dp2": dict(layout=dict(tp=2)),
    "pp2 dp2": dict(layout=dict(pp=2)),
    "hsdp 2x2": dict(layout=dict(dp_replicate=2)),
    "tp4": dict(layout=dict(tp=4)),
    "cp4": dict(layout=dict(cp=4)),
    "pp4": dict(layout=dict(pp=4)),
    "tp2 cp2": dict(layout=dict(tp=2, cp=2)),
    "pp2 cp2": dict(layout=dict(pp=2, cp=2)),
    "pp2 tp2, interleaved": dict(layout=dict(pp=2, tp=2) | INTERLEAVED),
    "pp2 dp2, zero-bubble": dict(layout=dict(pp=2, pipeline_schedule="zero-bubble")),
    "pp2 tp2, zero-bubble": dict(layout=dict(pp=2, tp=2, pipeline_schedule="zero-bubble")),
    "pp4, rows per micro-batch": dict(layout=dict(pp=4, rows_per_micro_batch=1)),
    "dp4, resharded": dict(layout=dict(reshard_after_forward=True)),
    "dp4, layer checkpointing": dict(layout=dict(activation_checkpointing="layer")),
    "tp2 dp2, float32": dict(layout=dict(tp=2), dtype="float32"),
}
TRAINED = [dict(dp_shard=4), dict(pp=2), dict(pp=2, pipeline_schedule="zero-bubble"), dict(reshard_after_forward=True)]


def check(found, cases):
    assert found.keys() == cases.keys()
    for name, seen in found.items():
        print(f"| {name} | {seen['loss']:.1e} | {seen['rows']:.1e} | {seen['seconds']:.1f} s |")
    for name, seen in found.items():
        tolerance = 1e-12 if cases[name].get("dtype") is None else 1e-5
        assert max(seen["loss"], seen["rows"]) < tolerance, name
        assert seen["row_count"] == 35
        assert seen["tokens"] == 0
        assert seen["likeliest"] and seen["alike"] and seen["scaled"], name


@pytest.fixture(scope="module")
def quick():
    """All quick functions in one launch of four processes."""
    calls = {"compare": [CASES], "trained_with_measures_between": [TRAINED[:1]], "ties": []}
    return dict(zip(calls, launch("tests.evaluate.measuring:several", 4, list(calls.items())), strict=True))


def test_measures_in_a_layout_are_those_of_the_whole_model_on_every_process(quick):
    check(quick["compare"], CASES)


def test_measuring_leaves_a_training_bitwise_as_it_was(quick):
    assert quick["trained_with_measures_between"] == {str(TRAINED[0]): 0.0}


def test_of_equal_logits_the_first_is_picked_wherever_the_vocabulary_is_cut(quick):
    found = quick["ties"]
    assert found["several"] > 50
    assert found["equal"] and found["whole"]
    assert found["none"] == 0


@pytest.mark.slow
def test_measures_in_more_layouts():
    check(launch("tests.evaluate.measuring:compare", 4, MORE, seconds=600), MORE)


@pytest.mark.slow
def test_measuring_leaves_every_training_bitwise_as_it_was():
    found = launch("tests.evaluate.measuring:trained_with_measures_between", 4, TRAINED, seconds=600)
    assert found == {str(keys): 0.0 for keys in TRAINED}


@pytest.mark.slow
def test_gathered_in_bfloat16_losses_are_near():
    cases = {str(keys): dict(layout=keys, dtype="float32", bfloat16=True) for keys in ({}, dict(pp=2), dict(tp=2))}
    for name, seen in launch("tests.evaluate.measuring:compare", 4, cases).items():
        assert seen["loss"] < 5e-3, name
        assert seen["alike"], name
