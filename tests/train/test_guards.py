"""What watches over a run: refused steps, SIGTERM, hangs, spikes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from herdlm.base.errors import HerdError
from herdlm.base.events import read_events
from herdlm.train.checkpoint import checkpoints
from herdlm.train.guards import PreemptedError
from herdlm.train.log import SpikeDetector
from herdlm.train.loop import train
from herdlm.train.objectives import NextToken
from tests.conftest import small_model
from tests.train.test_loop import CONFIG, Counted, Cut, batches, weights

ROOT = Path(__file__).parents[2]


class Poisoned(Counted):
    """Gives a loss that is not a number in some calls, counted over all steps tried."""

    def __init__(self, at):
        super().__init__()
        object.__setattr__(self, "at", set(at))

    def loss(self, model, batch):
        loss, seen = super().loss(model, batch)
        return (loss * float("nan") if self.calls[0] - 1 in self.at else loss), seen


def test_a_refused_step_is_passed_over_and_recorded(tokenizer, tmp_path):
    data = batches(tokenizer)
    config = CONFIG.model_copy(update={"on_not_finite": "skip"})
    model = small_model()
    train(model, Poisoned({6}), data, config, work=tmp_path, quiet=True)
    (refused,) = read_events(tmp_path / "events.jsonl", "refused")
    assert (refused["step"], refused["loss"]) == (7, "nan")
    kept = load_file(tmp_path / "refused" / refused["batches"])
    (batch,) = data.micro_batches(6)
    assert torch.equal(kept["0.tokens"], batch.tokens)
    steps = [e["step"] for e in read_events(tmp_path / "events.jsonl", "step")]
    assert steps == [n for n in range(1, data.steps + 1) if n != 7]
    assert all(torch.isfinite(w).all() for w in weights(model).values())


def test_rolling_back_ends_where_passing_over_ends(tokenizer, tmp_path):
    data, ended = batches(tokenizer), {}
    for mode in ("skip", "roll-back"):
        config = CONFIG.model_copy(update={"on_not_finite": mode})
        model = small_model()
        train(model, Poisoned({6}), data, config, work=tmp_path / mode, quiet=True)
        ended[mode] = weights(model)
        steps = [e["step"] for e in read_events(tmp_path / mode / "events.jsonl", "step")]
        assert steps == [n for n in range(1, data.steps + 1) if n != 7]
    for name, value in ended["skip"].items():
        assert torch.equal(value, ended["roll-back"][name]), name


def test_a_resumed_run_passes_over_what_was_refused(tokenizer, tmp_path, any_start):
    data = batches(tokenizer)
    config = CONFIG.model_copy(update={"on_not_finite": "skip"})
    whole = small_model()
    train(whole, Poisoned({6}), data, config, work=tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        train(small_model(), Poisoned({6}), Cut(data, 10), config, work=tmp_path / "cut", quiet=True)
    resumed = small_model(seed=9)
    train(resumed, Poisoned(set()), data, config, work=tmp_path / "cut", quiet=True)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_too_many_refused_steps_end_the_run(tokenizer, tmp_path):
    config = CONFIG.model_copy(update={"on_not_finite": "skip", "max_refused_steps": 2})
    with pytest.raises(HerdError, match="3 skipped steps exceed max_refused_steps = 2"):
        train(small_model(), Poisoned(range(3, 20)), batches(tokenizer), config, work=tmp_path, quiet=True)


def test_nothing_to_roll_back_to_is_told(tokenizer, tmp_path):
    config = CONFIG.model_copy(update={"on_not_finite": "roll-back"})
    with pytest.raises(HerdError, match="no checkpoint to roll back to"):
        train(small_model(), Poisoned({1}), batches(tokenizer), config, work=tmp_path, quiet=True)


def test_sigterm_saves_and_the_run_goes_on_to_bitwise_the_same_weights(tokenizer, tmp_path, any_start):
    data = batches(tokenizer)
    undisturbed = small_model()
    train(undisturbed, NextToken(), data, CONFIG, quiet=True)

    class Terminated(Counted):
        def called(self, number, model):
            if number == 6:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(PreemptedError, match="its state after step 7 is saved") as caught:
        train(small_model(), Terminated(), data, CONFIG, work=tmp_path, quiet=True, identity="same")
    assert caught.value.exit_code == 0
    assert checkpoints(tmp_path / "checkpoints")[-1].name == "step-00000007"
    resumed = small_model(seed=9)
    train(resumed, NextToken(), data, CONFIG, work=tmp_path, quiet=True, identity="same")
    for name, value in weights(undisturbed).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_a_hang_ends_the_process_and_shows_where_it_was():
    script = (
        "import time\n"
        "from herdlm.train.guards import Watchdog\n"
        "def waits_for_one_that_is_gone():\n"
        "    time.sleep(10_000)\n"
        "with Watchdog(1.0):\n"
        "    waits_for_one_that_is_gone()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "finished no step for 1 s" in done.stderr
    assert "waits_for_one_that_is_gone" in done.stderr


def test_spikes_are_far_above_what_was_just_before():
    detector = SpikeDetector()
    assert not any(detector.is_spike(3.0 + 0.01 * (i % 7)) for i in range(100))
    assert detector.is_spike(4.0)
    assert not detector.is_spike(3.03)


def test_a_loss_of_exactly_six_deviations_is_no_spike():
    detector = SpikeDetector()
    for i in range(64):
        detector.is_spike(3.0 + (-1) ** i)  # mean 3, standard deviation 1
    assert not detector.is_spike(9.0)
    detector = SpikeDetector()
    for i in range(64):
        detector.is_spike(3.0 + (-1) ** i)
    assert detector.is_spike(9.001)
