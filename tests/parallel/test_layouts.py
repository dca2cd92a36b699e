"""Training through the loop and exporting from any layout; what activations cost; compiled layers."""

import pytest

from tests.parallel.processes import launch
from tests.reading_budget import check_budget, source_files

HERE = "tests.parallel.layouts"
LAYOUTS = [dict(tp=2, pp=2), dict(cp=2)]
QUICK = {
    "train_and_export": (LAYOUTS,),
    "filled_from_nothing": (dict(tp=2, pp=2),),
    "refusals": (),
    "saved_bytes": (),
    "checkpointing_costs": (),
    "compiled": (True,),
    "device_reads": ([dict(tp=2, pp=2), dict(cp=2)],),
    "traced_files": ([dict(tp=2, pp=2), dict(cp=2)],),
}
LINES = 2450


@pytest.fixture(scope="module")
def quick():
    """What the quick functions gave, all run in one launch of four processes."""
    return dict(zip(QUICK, launch(f"{HERE}:several", 4, list(QUICK.items())), strict=True))


def test_a_step_in_four_dimensions_is_read_within_the_budget(quick):
    files = source_files(quick["traced_files"])
    assert {"train/loop.py", "parallel/model.py", "parallel/tensor.py", "parallel/context.py"} <= files.keys()
    check_budget(files, LINES, 28)


def test_a_step_does_not_wait_for_the_device(quick):
    assert quick["device_reads"] == []


def test_training_and_export_from_layouts(quick):
    found = quick["train_and_export"]
    print(found)
    assert len(found) == len(LAYOUTS)
    for layout, seen in found.items():
        assert max(seen.values()) < 1e-11, layout


def test_a_model_is_filled_and_exported_without_ever_being_whole_elsewhere(quick):
    counts = quick["filled_from_nothing"]
    assert counts["held"] < 0.4 * counts["whole"]


def test_a_step_that_is_not_finite_is_refused(quick):
    not_finite, _ = quick["refusals"]
    assert "step 1 has loss nan" in not_finite


def test_fp8_is_refused_with_tensor_parallelism(quick):
    _, fp8 = quick["refusals"]
    assert "which parallel.tp and zero-bubble do not" in fp8


def test_column_parallel_inputs_are_not_kept_gathered(quick):
    kept = quick["saved_bytes"]
    assert kept["gathered once"] == kept["whole input"]
    assert kept["gathered again"] == kept["whole input"] / 4


def test_checkpointing_keeps_less_and_selective_computes_no_product_again(quick):
    costs = quick["checkpointing_costs"]
    assert costs["layer"]["bytes"] < 0.1 * costs["none"]["bytes"]
    assert costs["selective"]["flops"] == costs["none"]["flops"]
    # All of the forward pass but a layer's last product, whose result nothing in backward asks for.
    assert 1.2 < costs["layer"]["flops"] / costs["none"]["flops"] < 4 / 3


def test_a_layer_that_cannot_be_compiled_runs_as_it_is(quick):
    (plain, fallen_back), messages = quick["compiled"]
    assert plain == fallen_back
    assert messages == ["a layer runs uncompiled, because the compiler failed: no compiler here"]


@pytest.mark.slow
def test_training_and_export_from_tensor_parallel_replicas():
    ((_, seen),) = launch(f"{HERE}:train_and_export", 4, [dict(tp=2, dp_replicate=2)]).items()
    assert max(seen.values()) < 1e-11


@pytest.mark.slow
def test_bfloat16_training_is_near_one_process():
    layouts = [dict(tp=2), dict(pp=2), dict(cp=2, tp=2), dict(pp=2, pipeline_schedule="zero-bubble")]
    found = launch(f"{HERE}:train_and_export", 4, layouts, "float32", "bfloat16")
    for layout, seen in found.items():
        assert seen["loss"] < 5e-3, layout


@pytest.mark.slow
def test_fp8_training_is_near_one_process():
    found = launch(f"{HERE}:train_and_export", 4, [dict(dp_shard=4), dict(pp=2), dict(cp=2)], "float32", "fp8")
    for layout, seen in found.items():
        assert seen["loss"] < 5e-3, layout


@pytest.mark.slow
def test_compiled_layers_train_alike():
    (plain, compiled), messages = launch(f"{HERE}:compiled", 2, False, seconds=600)
    assert not messages
    assert compiled == pytest.approx(plain, rel=1e-4)


@pytest.mark.slow
def test_adapters_are_trained_merged_and_saved_from_layouts():
    found = launch(f"{HERE}:adapters", 4, [dict(dp_shard=4), dict(tp=2, pp=2), dict(tp=2, dp_replicate=2)])
    assert len(found) == 3
    assert max(found.values()) < 1e-6, found  # the adapter's file is float32
