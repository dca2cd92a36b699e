"""The loop: schedules, accumulation, resuming to the bit, averaging, and refusing what is not finite."""

import json
import os
import subprocess
import sys
import threading
import time
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from herdlm.base.errors import DamagedError, HerdError, InputError
from herdlm.base.events import read_events
from herdlm.tokens.batch import Batch
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.dialogs import DialogBatches
from herdlm.train.checkpoint import Average, Checkpointer, checkpoints, step_of
from herdlm.train.config import TrackConfig, TrainConfig
from herdlm.train.loop import averaging_steps, make_optimizer, train
from herdlm.train.objectives import NextToken
from herdlm.train.schedules import learning_rate
from tests.conftest import small_model
from tests.train.test_objectives import DIALOGS

CONFIG = TrainConfig(
    peak_lr=1e-2, warmup_steps=3, precision="float32", checkpoint_every_steps=4, average_last=0.5, average_count=3
)


class Cut:
    """Batches that stop the process's work at a step, as a kill would."""

    def __init__(self, batches, at):
        self.batches, self.at, self.steps = batches, at, batches.steps

    def micro_batches(self, step):
        if step == self.at:
            raise KeyboardInterrupt
        return self.batches.micro_batches(step)


class Counted(NextToken):
    """Next-token loss that tells when it is called for the n-th time, from 0: once a step with one micro-batch."""

    def __init__(self):
        object.__setattr__(self, "calls", [0])

    def called(self, number, model):
        pass

    def loss(self, model, batch):
        self.called(self.calls[0], model)
        self.calls[0] += 1
        return NextToken.loss(self, model, batch)


class Split:
    """The same steps in micro-batches of one row."""

    def __init__(self, batches):
        self.batches, self.steps = batches, batches.steps

    def micro_batches(self, step):
        (whole,) = self.batches.micro_batches(step)
        fields = ("tokens", "targets", "weights", "documents", "positions")
        return [Batch(**{f: getattr(whole, f)[r : r + 1] for f in fields}) for r in range(len(whole.tokens))]


def batches(tokenizer, epochs=8, rows=2):
    return DialogBatches(ChatFormat.of(tokenizer), DIALOGS * 3, seq_len=64, rows_per_step=rows, epochs=epochs, seed=5)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("cut_at", [1, 4, 7, 13, 18])
def test_a_cut_off_run_goes_on_to_bitwise_the_same_weights(tokenizer, tmp_path, cut_at, any_start):
    data = batches(tokenizer)
    undisturbed = small_model()
    whole = train(undisturbed, NextToken(), data, CONFIG, work=tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        train(small_model(), NextToken(), Cut(data, cut_at), CONFIG, work=tmp_path / "cut", quiet=True)
    resumed = small_model(seed=99)  # what it starts from must not matter once there is a checkpoint
    if cut_at < CONFIG.checkpoint_every_steps:
        resumed = small_model()
    again = train(resumed, NextToken(), data, CONFIG, work=tmp_path / "cut", quiet=True)
    for name, value in weights(undisturbed).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert again.last_loss == whole.last_loss
    logs = [
        [(e["step"], e["loss"], e["lr"]) for e in read_events(tmp_path / run / "events.jsonl", "step")]
        for run in ("whole", "cut")
    ]
    assert logs[0] == logs[1]  # no gap, no double step
    assert [step for step, _, _ in logs[0]] == list(range(1, data.steps + 1))


def test_accumulation_equals_the_big_batch(tokenizer):
    data = batches(tokenizer, epochs=2, rows=3)
    config = CONFIG.model_copy(update={"average_last": 0.0})
    one, many = small_model(), small_model()
    train(one, NextToken(), data, config, quiet=True)
    train(many, NextToken(), Split(data), config, quiet=True)
    for name, value in weights(one).items():
        torch.testing.assert_close(value, weights(many)[name], rtol=1e-4, atol=2e-5, msg=name)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tokenizer, tmp_path):
    data = batches(tokenizer)
    undisturbed = small_model()
    train(undisturbed, NextToken(), data, CONFIG, quiet=True)
    with pytest.raises(KeyboardInterrupt):
        train(small_model(), NextToken(), Cut(data, 15), CONFIG, work=tmp_path, quiet=True)
    saved = checkpoints(tmp_path / "checkpoints")
    assert len(saved) == 2
    (tensors,) = saved[1].glob("*.safetensors")
    content = bytearray(tensors.read_bytes())
    content[-9] ^= 1
    tensors.write_bytes(bytes(content))
    resumed = small_model()
    with pytest.warns(RuntimeWarning, match="step-00000012.* is not what was saved.* resuming from step-00000008"):
        train(resumed, NextToken(), data, CONFIG, work=tmp_path, quiet=True)
    (told,) = read_events(tmp_path / "events.jsonl", "damaged")
    assert (told["damaged"], told["instead"]) == ("step-00000012", "step-00000008")
    for name, value in weights(undisturbed).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_when_no_checkpoint_can_be_read_the_run_says_so(tokenizer, tmp_path):
    data = batches(tokenizer)
    with pytest.raises(KeyboardInterrupt):
        train(small_model(), NextToken(), Cut(data, 15), CONFIG, work=tmp_path, quiet=True)
    for path in checkpoints(tmp_path / "checkpoints"):
        next(path.glob("*.safetensors")).write_bytes(b"")
    with pytest.raises(DamagedError, match=r"\.safetensors is not what was saved"):
        train(small_model(), NextToken(), data, CONFIG, work=tmp_path, quiet=True)


def test_a_step_that_is_not_finite_is_not_taken(tokenizer):
    model = small_model()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    before = weights(model)
    with pytest.raises(HerdError, match="step 1 has loss nan"):
        train(model, NextToken(), batches(tokenizer), CONFIG, quiet=True)
    for name, value in weights(model).items():
        assert torch.equal(value.nan_to_num(7), before[name].nan_to_num(7)), name


def test_the_average_is_the_mean_of_the_checkpoints(tokenizer):
    data = batches(tokenizer)
    steps = averaging_steps(data.steps, CONFIG)
    assert len(steps) == 3
    assert max(steps) == data.steps
    seen = []

    class Watching(Counted):
        def called(self, number, model):
            if number in averaging_steps(data.steps, CONFIG):
                seen.append(weights(model))

    plain = CONFIG.model_copy(update={"average_last": 0.0})
    model = small_model()
    train(model, Watching(), data, plain, quiet=True)
    seen.append(weights(model))
    averaged = small_model()
    result = train(averaged, NextToken(), data, CONFIG, quiet=True)
    assert result.averaged == 3
    for name, value in weights(averaged).items():
        mean = torch.stack([w[name] for w in seen]).mean(0)
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-7, msg=name)


def test_norms_and_biases_do_not_decay():
    model = small_model(attention_bias=True)
    decays = {id(p): g["weight_decay"] for g in make_optimizer(model, CONFIG).param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0.0 if "norm" in name or name.endswith(".bias") else CONFIG.weight_decay)


def test_schedule_warms_up_decays_to_the_floor_and_anneals_to_zero():
    config = TrainConfig(peak_lr=2.0, warmup_steps=10, floor=0.1, anneal_steps=20)
    rates = [learning_rate(step, 120, config) for step in range(120)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # half way of the cosine
    assert rates[100] == pytest.approx(0.2 * 20 / 21)
    assert rates[119] == pytest.approx(0.2 / 21)
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))


@pytest.mark.parametrize(("decay", "middle"), [("linear", 0.55), ("constant", 1.0)])
def test_other_decays(decay, middle):
    config = TrainConfig(peak_lr=1.0, decay=decay, floor=0.1)
    assert learning_rate(50, 100, config) == pytest.approx(middle)


def test_checkpoints_hold_no_pickle(tokenizer, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(small_model(), NextToken(), Cut(batches(tokenizer), 9), CONFIG, work=tmp_path, quiet=True)
    files = list(checkpoints(tmp_path / "checkpoints")[-1].iterdir())
    assert {p.suffix for p in files} == {".json", ".safetensors"}
    assert json.loads((checkpoints(tmp_path / "checkpoints")[-1] / "state.json").read_text())["step"] == 8
    (tensors,) = (load_file(path) for path in files if path.suffix == ".safetensors")
    counted = {name: value for name, value in tensors.items() if name.endswith(".step")}
    assert len(counted) == len(weights(small_model()))
    assert all(value.tolist() == [8.0] for value in counted.values())  # lists of one: a part needs a place


def test_milestones_stay_beside_the_newest_checkpoints(tokenizer, tmp_path):
    config = CONFIG.model_copy(update={"checkpoint_every_steps": 2, "milestone_every_steps": 8, "checkpoints_kept": 1})
    with pytest.raises(KeyboardInterrupt):
        train(small_model(), NextToken(), Cut(batches(tokenizer), 21), config, work=tmp_path, quiet=True)
    assert [step_of(path) for path in checkpoints(tmp_path / "checkpoints")] == [8, 16, 20]


def test_a_run_leaves_its_last_state_only_where_a_longer_run_goes_on_from_it(tokenizer, tmp_path):
    data = batches(tokenizer, epochs=1)
    for horizon in (data.steps, data.steps + 1):
        config = CONFIG.model_copy(update={"horizon_steps": horizon, "checkpoint_every_steps": 1000})
        train(small_model(), NextToken(), data, config, work=tmp_path / str(horizon), quiet=True)
    assert not checkpoints(tmp_path / str(data.steps) / "checkpoints")
    assert [step_of(path) for path in checkpoints(tmp_path / str(data.steps + 1) / "checkpoints")] == [data.steps]


@pytest.mark.parametrize("quiet", [True, False])
def test_progress_is_shown_unless_it_is_to_be_quiet(tokenizer, monkeypatch, quiet):
    shown, data = [], batches(tokenizer, epochs=1)
    monkeypatch.setattr("herdlm.base.progress.report_to", shown.append)
    train(small_model(), NextToken(), data, CONFIG, title="flagship", quiet=quiet)
    if quiet:
        assert not shown
    else:
        assert shown[-1][:4] == ("flagship", data.steps, data.steps, "steps")
        assert shown[-1][5].startswith("loss ")


def test_what_a_killed_process_left_half_written_is_removed_and_gets_into_no_checkpoint(tmp_path):
    model = small_model()
    optimizer = make_optimizer(model, CONFIG)
    torn, again = tmp_path / ".step-00000003.tmp", tmp_path / ".step-00000007.tmp"
    torn.mkdir()
    with Checkpointer(tmp_path, model, optimizer, Average(), CONFIG) as checkpointer:
        assert not torn.exists()
        again.mkdir()
        (again / "shard-00001-stale.safetensors").write_bytes(b"of a process that was killed")
        checkpointer.save(7)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000007"]
    assert not list(tmp_path.glob("*/*stale*"))


def test_the_run_goes_on_while_a_checkpoint_is_written(tokenizer, tmp_path, monkeypatch):
    written, finished = threading.Event(), []
    plain = Checkpointer._publish

    def slow(self, working, final, state):
        assert written.wait(60)  # set by a later step: if the run waited for the writing, it would never come
        finished.append(state["step"])
        plain(self, working, final, state)

    class Going(Counted):
        def called(self, number, model):
            if number == 6:  # step 4's checkpoint is still being written
                assert not checkpoints(tmp_path / "checkpoints")
                written.set()

    monkeypatch.setattr(Checkpointer, "_publish", slow)
    train(small_model(), Going(), batches(tokenizer), CONFIG, work=tmp_path, quiet=True)
    assert finished[0] == 4


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_the_one_before_stays(tokenizer, tmp_path, monkeypatch):
    plain = Checkpointer._write_part

    def full(self, working, tensors):
        if working.name == ".step-00000008.tmp":
            raise OSError(28, "No space left on device", str(working))
        plain(self, working, tensors)

    monkeypatch.setattr(Checkpointer, "_write_part", full)
    with pytest.raises(HerdError, match=r"step-00000008 was not written: .*No space left"):
        train(small_model(), NextToken(), batches(tokenizer), CONFIG, work=tmp_path, quiet=True)
    assert [step_of(path) for path in checkpoints(tmp_path / "checkpoints")] == [4]


def test_each_step_tells_its_speed_and_what_it_waited_for(tokenizer, tmp_path):
    data = batches(tokenizer)
    train(small_model(), NextToken(), data, CONFIG, work=tmp_path, quiet=True)
    (setup,) = read_events(tmp_path / "events.jsonl", "setup")
    assert setup["peak_flops"] > 1e8
    for event in read_events(tmp_path / "events.jsonl", "step"):
        assert 0 < event["mfu"] < 1.5
        assert 0 <= event["stall_seconds"] <= event["seconds"]
        assert event["tokens_per_second"] == pytest.approx(event["tokens"] / event["seconds"], rel=0.2)
        assert event["memory_gib"] > 0.05


def test_what_is_measured_on_the_way_is_logged_once_a_step_also_by_a_resumed_run(tokenizer, tmp_path):
    config = CONFIG.model_copy(update={"validate_every_steps": 3})
    data, told = batches(tokenizer), []

    def validate():
        told.append(len(told))
        return {"bits_per_byte": 2.0}

    with pytest.raises(KeyboardInterrupt):
        train(small_model(), NextToken(), Cut(data, 7), config, work=tmp_path, quiet=True, validate=validate)
    train(small_model(), NextToken(), data, config, work=tmp_path, quiet=True, validate=validate)
    seen = [(e["step"], e["bits_per_byte"]) for e in read_events(tmp_path / "events.jsonl", "validation")]
    assert seen == [(step, 2.0) for step in range(3, data.steps + 1, 3)]
    assert len(told) == len(seen) + 1  # step 6 again: the checkpoint is of step 4


def test_tensorboard_shows_what_the_log_holds(tokenizer, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data, track = batches(tokenizer), TrackConfig(tensorboard="on")
    with pytest.raises(KeyboardInterrupt):
        train(small_model(), NextToken(), Cut(data, 7), CONFIG, work=tmp_path, quiet=True, track=track)
    time.sleep(1.1)  # files are told apart by the second they were begun in
    train(small_model(), NextToken(), data, CONFIG, work=tmp_path, quiet=True, track=track)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    shown = {point.step: point.value for point in board.Scalars("step/loss")}
    logged = {event["step"]: event["loss"] for event in read_events(tmp_path / "events.jsonl", "step")}
    assert shown == pytest.approx(logged)


def test_what_is_asked_for_and_not_installed_is_refused(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("herdlm.train.track.find_spec", lambda name: None)
    for track in (TrackConfig(tensorboard="on"), TrackConfig(wandb_project="herd")):
        with pytest.raises(InputError, match="is not installed"):
            train(small_model(), NextToken(), batches(tokenizer), CONFIG, work=tmp_path, quiet=True, track=track)


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
def test_weights_and_biases_gets_the_log_when_asked(tmp_path):
    script = (
        "from pathlib import Path\n"
        "from herdlm.train.config import TrackConfig\n"
        "from herdlm.train.track import Tracker\n"
        "with Tracker(TrackConfig(tensorboard='off', wandb_project='herd'), Path('.'), 'flagship', 0) as track:\n"
        "    for step in (1, 2, 3):\n"
        "        track.write('step', step, {'loss': 4 / step})\n"
    )
    environment = os.environ | {"WANDB_MODE": "offline", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=200, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "step/loss 1.33333" in done.stderr  # its own summary of the run
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
