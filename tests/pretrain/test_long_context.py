"""Stages and their gates: the order of things, what stops a run, and what it leaves behind."""

import json

import pytest

from herdlm.base.errors import DamagedError, HerdError
from herdlm.evaluate.intervals import pass_rate
from herdlm.evaluate.needle import Retrieval
from herdlm.pretrain.config import PretrainConfig
from herdlm.pretrain.long_context import StageCallbacks, train_in_stages

MIX = [{"source": "web", "share": 1.0}]
STAGES = [
    {"seq_len": 16, "tokens": 320, "rope_scaling": {"factor": 4.0}},
    {"seq_len": 32, "tokens": 640},
    {"seq_len": 64, "tokens": 640, "rope_scaling": {"factor": 8.0}},
]


def config(stages=STAGES, margin=0.05, rate=0.9):
    return PretrainConfig.model_validate(
        {
            "seq_len": 8,
            "rows_per_step": 8,
            "steps": 60,
            "mix": MIX,
            "anneal_mix": MIX,
            "long_context": stages,
            "gate": {"short_loss_margin": margin, "needle_rate": rate},
            "train": {"peak_lr": 1e-3, "anneal_steps": 10},
        }
    )


class RecordedRun:
    """Records the calls of a staged run; losses and needles are given for each call."""

    def __init__(self, losses=(2.0, 2.01, 2.04, 2.0), found=(10, 10, 10), checkpoint=0, stop_at=None):
        self.calls, self.losses, self.found = [], list(losses), list(found)
        self.checkpoint, self.stop_at = checkpoint, stop_at

    def train_until(self, step):
        if self.checkpoint < step:
            if self.stop_at is not None and self.checkpoint <= self.stop_at < step:
                raise KeyboardInterrupt
            self.calls.append(("train", self.checkpoint, step))
            self.checkpoint = step

    def set_rope_scaling(self, scaling):
        self.calls.append(("rope", scaling.factor))

    def short_loss(self, seq_len):
        self.calls.append(("loss", seq_len))
        return self.losses.pop(0)

    def find_needles(self, seq_len):
        self.calls.append(("needles", seq_len))
        right = self.found.pop(0)
        return Retrieval(pass_rate([True] * right + [False] * (10 - right)), right, 10, seq_len, {0.0: right / 10})

    def save(self, folder):
        folder.mkdir()
        (folder / "model").write_text(str(self.checkpoint))

    def callbacks(self):
        return StageCallbacks(self.train_until, self.set_rope_scaling, self.short_loss, self.find_needles, self.save)


WHOLE = [
    ("train", 0, 25),
    ("loss", 8),
    ("rope", 4.0),
    ("train", 25, 30),
    ("needles", 16),
    ("loss", 8),
    ("train", 30, 40),
    ("needles", 32),
    ("loss", 8),
    ("rope", 8.0),
    ("train", 40, 50),
    ("needles", 64),
    ("loss", 8),
    ("train", 50, 60),
]


def test_each_stage_is_trained_measured_and_passed_before_the_next(tmp_path):
    recorded = RecordedRun()
    passed = train_in_stages(config(), recorded.callbacks(), tmp_path)
    assert recorded.calls == WHOLE
    assert [(e.stage, e.seq_len, e.step) for e in passed] == [(1, 16, 30), (2, 32, 40), (3, 64, 50)]
    assert [e.short_loss for e in passed] == [2.01, 2.04, 2.0]
    assert all(e.short_loss_allowed == pytest.approx(2.05) for e in passed)


def test_without_stages_the_run_is_one(tmp_path):
    recorded = RecordedRun()
    assert train_in_stages(config(stages=[]), recorded.callbacks(), tmp_path) == []
    assert recorded.calls == [("train", 0, 60)]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stop_at", [0, 25, 30, 40, 50])
def test_a_run_that_was_cut_off_goes_on_without_measuring_again(tmp_path, stop_at):
    first = RecordedRun(stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        train_in_stages(config(), first.callbacks(), tmp_path)
    again = RecordedRun(first.losses, first.found, checkpoint=first.checkpoint)
    passed = train_in_stages(config(), again.callbacks(), tmp_path)
    work = [[call for call in recorded if call[0] != "rope"] for recorded in (first.calls + again.calls, WHOLE)]
    assert work[0] == work[1]
    # The model is a new one, so each stage begun gives it its RoPE again, before any of the stage's steps.
    assert [call for call in again.calls if call[0] == "rope"] == [("rope", 4.0), ("rope", 8.0)]
    assert len(passed) == 3


@pytest.mark.parametrize(
    ("losses", "found", "stage", "reason"),
    [
        ((2.0, 2.051), (10,), 1, r"loss on rows of 8 tokens is 2\.0510, above the allowed 2\.0500"),
        ((2.0, 2.0, 2.0), (9, 8), 2, r"finds 80\.0% of needles in 32 tokens, below the required 90\.0%"),
        ((2.0, float("nan")), (10,), 1, "is nan"),
        ((2.0, 3.0), (0,), 1, r"3\.0000, above the allowed 2\.0500 and it finds 0\.0% of needles in 16"),
    ],
)
def test_a_gate_that_fails_stops_the_run_with_evidence_and_model(tmp_path, losses, found, stage, reason):
    recorded = RecordedRun(losses, found)
    with pytest.raises(HerdError, match=reason) as caught:
        train_in_stages(config(), recorded.callbacks(), tmp_path)
    assert caught.value.exit_code == 1
    folder = tmp_path / f"failed-gate-{stage}"
    assert str(folder) in str(caught.value)
    evidence = json.loads((folder / "gate.json").read_text())
    assert evidence["stage"] == stage
    assert evidence["needles"]["found"] == found[-1]
    assert (folder / "model").read_text() == str({1: 30, 2: 40}[stage])
    assert recorded.calls[-1][0] == "loss"  # nothing was trained after it
    assert len(json.loads((tmp_path / "gates.json").read_text())["passed"]) == stage - 1


def test_a_wider_gate_lets_the_same_model_pass(tmp_path):
    recorded = RecordedRun((2.0, 2.3), (10,))
    with pytest.raises(HerdError):
        train_in_stages(config(), recorded.callbacks(), tmp_path)
    again = RecordedRun((2.3, 2.3, 2.3), (10, 10, 10), checkpoint=30)
    assert len(train_in_stages(config(margin=0.5), again.callbacks(), tmp_path)) == 3


def test_a_second_failure_of_a_gate_replaces_the_first(tmp_path):
    for rate in (3, 4):
        recorded = RecordedRun((2.0, 2.0) if rate == 3 else (2.0,), (rate,))
        with pytest.raises(HerdError, match=f"finds {rate}0.0%"):
            train_in_stages(config(), recorded.callbacks(), tmp_path)
    assert json.loads((tmp_path / "failed-gate-1" / "gate.json").read_text())["needle_rate"] == 0.4


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "gates.json").write_text('{"short_loss_before": 2.0, "passed": [{"stage": 1}]}')
    with pytest.raises(DamagedError, match=r"gates\.json is damaged"):
        train_in_stages(config(), RecordedRun().callbacks(), tmp_path)


def test_an_average_must_not_reach_into_the_stages():
    keys = config().model_dump()
    keys["train"]["average_last"] = 0.5
    with pytest.raises(ValueError, match="average_last 0.5 reaches back to step 30, into the long-context stages"):
        PretrainConfig.model_validate(keys)
