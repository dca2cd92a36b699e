"""The loop: schedules, accumulation, resuming to the bit, averaging, and refusing what is not finite."""

import json

import pytest
import torch

from herdlm.base.errors import DamagedError, HerdError
from herdlm.base.events import read_events
from herdlm.tokens.batch import Batch
from herdlm.tokens.dialogs import DialogBatches
from herdlm.train.checkpoint import checkpoints
from herdlm.train.config import TrainConfig
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


class Split:
    """The same steps in micro-batches of one row."""

    def __init__(self, batches):
        self.batches, self.steps = batches, batches.steps

    def micro_batches(self, step):
        (whole,) = self.batches.micro_batches(step)
        fields = ("tokens", "targets", "weights", "documents", "positions")
        return [Batch(**{f: getattr(whole, f)[r : r + 1] for f in fields}) for r in range(len(whole.tokens))]


def batches(tokenizer, epochs=8, rows=2):
    return DialogBatches(tokenizer, DIALOGS * 3, seq_len=64, rows_per_step=rows, epochs=epochs, seed=5)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("cut_at", [1, 4, 7, 13, 18])
def test_a_cut_off_run_goes_on_to_bitwise_the_same_weights(tokenizer, tmp_path, cut_at):
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
    train(resumed, NextToken(), data, CONFIG, work=tmp_path, quiet=True)
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
    with pytest.raises(HerdError, match="step 0 has loss nan"):
        train(model, NextToken(), batches(tokenizer), CONFIG, quiet=True)
    for name, value in weights(model).items():
        assert torch.equal(value.nan_to_num(7), before[name].nan_to_num(7)), name


def test_the_average_is_the_mean_of_the_checkpoints(tokenizer):
    data = batches(tokenizer)
    steps = averaging_steps(data.steps, CONFIG)
    assert len(steps) == 3
    assert max(steps) == data.steps
    seen = []

    class Watching:
        steps = data.steps

        def micro_batches(self, step):
            if step in averaging_steps(data.steps, CONFIG):
                seen.append(weights(model))
            return data.micro_batches(step)

    plain = CONFIG.model_copy(update={"average_last": 0.0})
    model = small_model()
    train(model, NextToken(), Watching(), plain, quiet=True)
    seen.append(weights(model))
    averaged = small_model()
    result = train(averaged, NextToken(), data, CONFIG, quiet=True)
    assert result.averaged == 3
    for name, value in weights(averaged).items():
        mean = torch.stack([w[name] for w in seen]).mean(0)
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-7, msg=name)


def test_norms_do_not_decay():
    model = small_model()
    decays = {id(p): g["weight_decay"] for g in make_optimizer(model, CONFIG).param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0.0 if "norm" in name else CONFIG.weight_decay)


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
