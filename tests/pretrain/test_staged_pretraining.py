"""Pre-training with ramp, mix phases, long-context stages and anneal: whole, cut off, and stopped by a gate."""

import json

import pytest
import torch

from herdlm.base.errors import HerdError
from herdlm.base.events import read_events
from herdlm.model.hf import load_folder
from herdlm.pretrain.config import timeline, tokens_in
from herdlm.pretrain.pretrain import pretrain
from herdlm.recipe import read_recipe
from herdlm.tokens.mixture import PretrainBatches
from tests.run.conftest import ROOT
from tests.scaling.test_anneal_probe import data  # noqa: F401 - a fixture

KEYS = [
    "tokenizer.vocab_size=400",
    "tokens.skill_documents=0",
    "pretrain.steps=50",
    "pretrain.rows_per_step=4",
    "pretrain.seq_len=16",
    'pretrain.mix=[{source = "web", share = 1}]',
    "herd.max_seq_len=256",
    'pretrain.anneal_mix=[{source = "web", share = 1}]',
    "pretrain.train.anneal_steps=10",
    "pretrain.ramp=[{from_tokens = 500, seq_len = 32, tokens_per_step = 128}]",
    "pretrain.mix_phases=[{from_tokens = 1000, mix = [{source = 'web', share = 1}]}]",
    "pretrain.train.warmup_steps=5",
    "pretrain.train.checkpoint_every_steps=4",
    "pretrain.train.average_last=0.1",
    "pretrain.long_context=[{seq_len = 64, tokens = 640, rope_scaling = {original_max_position_embeddings = 32}}, "
    "{seq_len = 128, tokens = 1280, tokens_per_step = 256}]",
    "pretrain.gate={short_loss_margin = 9.0, needle_rate = 0.0, needle_depths = 2, needles_per_depth = 1}",
]


def staged(data, out, *more, start=None):  # noqa: F811
    recipe = read_recipe(ROOT / "recipes" / "tiny.toml", [*KEYS, *more])
    return recipe, pretrain(recipe.job("small", start), tokens=data / "tokens", tokenizer=data / "tokenizer", out=out)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):  # noqa: F811
    out = tmp_path_factory.mktemp("staged") / "model"
    return out, *staged(data, out)


def test_the_run_follows_its_timeline(whole):
    out, recipe, counts = whole
    phases = timeline(recipe.pretrain)
    assert {(s.kind, s.seq_len) for s in phases} == {
        ("main", 16),
        ("main", 32),
        ("long-context", 64),
        ("long-context", 128),
        ("anneal", 128),
    }
    steps = list(read_events(out / "events.jsonl", "step"))
    assert [event["step"] for event in steps] == list(range(1, 51))
    assert [event["tokens"] for event in steps] == [s.tokens_per_step for s in phases for _ in range(s.steps)]
    assert counts["trained_tokens"] == tokens_in(recipe.pretrain) == sum(event["tokens"] for event in steps)
    rates = [event["lr"] for event in steps]
    assert rates[5:] == sorted(rates[5:], reverse=True)  # one schedule over all stages
    assert [gate["seq_len"] for gate in counts["gates"]] == [64, 128]
    assert counts["averaged_checkpoints"] > 1
    config = json.loads((out / "config.json").read_text())
    assert config["rope_scaling"]["original_max_position_embeddings"] == 32


@pytest.mark.parametrize(
    "cut_at", [3, 35, *(pytest.param(step, marks=pytest.mark.slow) for step in (29, 30, 34, 39, 44))]
)
def test_a_run_cut_off_anywhere_ends_with_the_same_weights(whole, data, tmp_path, monkeypatch, cut_at):  # noqa: F811
    read = PretrainBatches.micro_batches

    def cut(self, step):
        if step == cut_at:
            monkeypatch.setattr(PretrainBatches, "micro_batches", read)
            raise KeyboardInterrupt
        return read(self, step)

    monkeypatch.setattr(PretrainBatches, "micro_batches", cut)
    with pytest.raises(KeyboardInterrupt):
        staged(data, tmp_path / "model")
    _, counts = staged(data, tmp_path / "model")
    assert counts == whole[2]
    expected = dict(load_folder(whole[0]).named_parameters())
    for name, value in load_folder(tmp_path / "model").named_parameters():
        assert torch.equal(value, expected[name]), name


def test_a_gate_that_fails_leaves_evidence_and_a_model_that_loads(data, tmp_path):  # noqa: F811
    with pytest.raises(HerdError, match=r"stage 1 at step 35 failed: it finds 0\.0% of needles in 64 tokens"):
        staged(data, tmp_path / "model", "pretrain.gate.needle_rate=0.5")
    assert not (tmp_path / "model").exists()
    failed = tmp_path / ".model.working" / "failed-gate-1"
    assert json.loads((failed / "gate.json").read_text())["needles"]["trials"] == 2
    assert load_folder(failed).config.rope_scaling.original_max_position_embeddings == 32
    staged(data, tmp_path / "model")  # with a wider gate the same run goes on
