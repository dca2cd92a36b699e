"""Checkpoints on many processes: bitwise in the same layout, within rounding in another, damage told by all."""

import pytest

from tests.parallel.processes import launch

TP2PP2 = {"tp": 2, "pp": 2}
OTHERS = [{"dp_shard": 4}, {"cp": 2, "dp_replicate": 2}]
MORE = [{"tp": 2, "dp_shard": 2}, {"pp": 4}]
TOLERANCE = 5e-6  # float32; 1e-7 was seen


@pytest.fixture(scope="module")
def found():
    """All functions of :mod:`tests.train.resuming` in one launch of four processes."""
    calls = [("resume_in", [TP2PP2, [TP2PP2, *OTHERS]]), ("damage", []), ("whole_again", []), ("poisoned", [])]
    return launch("tests.train.resuming:several", 4, calls)


def test_the_same_layout_resumes_to_bitwise_the_same_weights(found):
    assert found[0][str(TP2PP2)] == 0.0


def test_any_other_layout_reads_the_checkpoint_and_ends_within_rounding(found):
    print(found[0])
    for keys in OTHERS:
        assert found[0][str(keys)] < TOLERANCE, keys


@pytest.mark.slow
def test_more_layouts_read_the_checkpoint():
    calls = [("resume_in", [TP2PP2, MORE]), ("resume_in", [{"dp_shard": 4}, [TP2PP2]])]
    for seen in launch("tests.train.resuming:several", 4, calls):
        assert max(seen.values()) < TOLERANCE, seen


def test_damage_to_one_processes_file_sends_all_to_the_checkpoint_before(found):
    assert found[1]["difference"] == 0.0


def test_when_none_is_whole_every_process_says_so(found):
    told = found[1]["told"]
    assert len(told) == 4
    assert all(t and "Delete" in t for t in told)
    assert any("shard-00002" in t for t in told)


def test_weights_saved_in_a_layout_are_read_into_a_whole_model(found):
    assert found[2] == 0.0


def test_a_step_that_is_not_finite_on_one_process_is_refused_by_all(found):
    seen = found[3]
    for log in seen["logs"].values():
        assert log == {"step": [1, 2, 3, 4, 5, 7], "refused": [6]}
    assert seen["difference"] == 0.0
