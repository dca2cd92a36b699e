"""The worth of a small data set: seen where there is one, not seen where there is none, the same when cut off."""

import json

import numpy as np
import pytest
import torch

from herdlm.base.errors import InputError
from herdlm.base.events import read_events
from herdlm.base.seeds import stream
from herdlm.evaluate.paired import paired_loss_difference, row_losses
from herdlm.evaluate.perplexity import text_loss
from herdlm.recipe import read_recipe
from herdlm.scaling.anneal_probe import anneal_probe, lines
from herdlm.tokens.shards import ShardWriter
from herdlm.tokens.tokenizer import BEGIN_OF_TEXT, END_OF_TEXT, PAD
from tests.conftest import TEXT, small_model
from tests.run.conftest import ROOT, herdlm

KEYS = [
    "tokenizer.vocab_size=400",
    "tokens.skill_documents=0",
    "pretrain.steps=60",
    "pretrain.rows_per_step=4",
    "pretrain.seq_len=32",
    "pretrain.rows_per_micro_batch=3",
    'pretrain.mix=[{source = "web", share = 1}]',
    'pretrain.anneal_mix=[{source = "web", share = 1}]',
    "pretrain.train.anneal_steps=20",
    "pretrain.train.warmup_steps=5",
    "pretrain.train.checkpoint_every_steps=7",
    "pretrain.mix_phases=[{from_tokens = 1000, mix = [{source = 'web', share = 1}]}]",
]
WORDS = TEXT.split()


def sentences(name, count):
    rng = stream(0, name)
    return [" ".join(WORDS[i] for i in rng.integers(0, len(WORDS), 30)) for _ in range(count)]


def squares(name, count):
    """Text of another kind: numbers that follow a rule."""
    return [" ".join(f"{n}{n}{n};" for n in stream(0, name).integers(0, 10, 20)) for _ in range(count)]


def write(folder, tokenizer, texts):
    writer = ShardWriter(folder, vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.content())
    for text in texts:
        tokens = [tokenizer.special(BEGIN_OF_TEXT), *tokenizer.encode(text), tokenizer.special(END_OF_TEXT)]
        writer.add(tokens, text_bytes=len(text.encode()))
    writer.close()
    return folder


@pytest.fixture(scope="module")
def data(tokenizer, tmp_path_factory):
    """Web text, a new set of numbers, and text of both kinds held out."""
    folder = tmp_path_factory.mktemp("probe")
    write(folder / "tokens" / "web", tokenizer, sentences("web", 60))
    write(folder / "tokens" / "web-validation", tokenizer, sentences("validation", 20))
    write(folder / "new", tokenizer, squares("new", 30))
    write(folder / "held", tokenizer, squares("held out", 20))
    (folder / "tokenizer").mkdir()
    tokenizer.save(folder / "tokenizer")
    return folder


def probe(data, out, more=(), **options):
    given = dict(
        tokens=data / "tokens",
        tokenizer=data / "tokenizer",
        new=data / "new",
        held_out={"numbers": data / "held"},
        out=out,
    )
    recipe = read_recipe(ROOT / "recipes" / "tiny.toml", [*KEYS, *more])
    return anneal_probe(recipe.job("small"), **(given | options))


@pytest.fixture(scope="module")
def told(data, tmp_path_factory):
    """(folder, result) of a probe with 30% of the new set."""
    out = tmp_path_factory.mktemp("out") / "probe"
    return out, probe(data, out)


def test_a_set_of_another_kind_helps_on_its_kind(told):
    out, result = told
    numbers = result["held_out"]["numbers"]
    assert numbers["verdict"] == "better"
    assert numbers["high"] < -0.1
    assert numbers["low"] <= numbers["difference"] == pytest.approx(numbers["new"] - numbers["default"])
    assert result["held_out"]["web-validation"]["difference"] > numbers["difference"] + 0.1
    assert (result["half_step"], result["steps"], result["tokens"]) == (30, 20, 20 * 4 * 32)
    assert json.loads((out / "probe.json").read_text()) == result
    text = lines(result)
    assert "30% of the new set" in text[0]
    assert text[2].endswith("better")


def test_the_rate_falls_to_zero_from_where_half_the_run_left_it(told):
    rates = [event["lr"] for event in read_events(told[0] / "new" / "events.jsonl", "step")]
    assert len(rates) == 20
    assert max(rates) == pytest.approx(told[1]["peak_lr"])
    assert rates[-1] < 0.06 * rates[0]
    assert rates == sorted(rates, reverse=True)


def test_both_arms_are_models_of_their_own(told):
    from herdlm.model.hf import load_folder

    default, new = (load_folder(told[0] / arm) for arm in ("default", "new"))
    assert not torch.equal(default.model.norm.weight, new.model.norm.weight)
    assert (told[0] / "new" / "tokenizer.json").exists()


def test_a_probe_that_was_cut_off_ends_with_the_same_numbers(told, data, tmp_path, monkeypatch):
    from herdlm.tokens.mixture import Mixture

    calls = 0
    read = Mixture.batch

    def cut(self, first_row, rows):
        nonlocal calls
        calls += 1
        if calls == 85:  # in the first arm
            raise KeyboardInterrupt
        return read(self, first_row, rows)

    monkeypatch.setattr(Mixture, "batch", cut)
    with pytest.raises(KeyboardInterrupt):
        probe(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert probe(data, tmp_path / "out") == told[1]
    assert calls < 30 * 2 + 20 * 4 + 85  # what was trained before is not trained again


def test_a_model_can_be_given(data, tmp_path, told, tokenizer):
    from herdlm.model.hf import save_folder

    save_folder(small_model(vocab_size=400), tmp_path / "half")
    result = probe(data, tmp_path / "out", half_trained=tmp_path / "half", steps=4, new_share=0.5)
    assert result["steps"] == 4
    assert result["held_out"]["numbers"]["default"] > told[1]["held_out"]["numbers"]["default"]


def test_row_losses_are_the_text_loss_row_by_row(data, tokenizer):
    model, shard, pad = small_model(), data / "held", tokenizer.special(PAD)
    losses = row_losses(model, shard, seq_len=32, pad=pad)
    whole = text_loss(model, shard, seq_len=32, pad=pad)
    assert losses.mean() == pytest.approx(whole.nats_per_token, rel=0.02)  # rows weigh alike, whatever they hold
    assert np.array_equal(losses, row_losses(model, shard, seq_len=32, pad=pad))


def test_the_paired_interval_covers_what_it_says():
    rng = stream(3, "pairs")
    before = rng.normal(3.0, 1.0, (400, 50))
    after = before + rng.normal(0.05, 0.1, (400, 50))
    found = [paired_loss_difference(b, a) for b, a in zip(before, after, strict=True)]
    assert 0.91 < np.mean([e.low <= 0.05 <= e.high for e in found]) < 0.98
    with pytest.raises(InputError, match="1 held-out rows give no interval"):
        paired_loss_difference(np.ones(1), np.ones(1))


def test_what_cannot_be_probed_is_refused(data, tmp_path, tokenizer):
    with pytest.raises(InputError, match="share is 1.5"):
        probe(data, tmp_path / "out", new_share=1.5)
    with pytest.raises(InputError, match="annealing takes 2 steps or more, not 1"):
        probe(data, tmp_path / "out", steps=1)
    with pytest.raises(InputError, match="new is not a token shard|holds no index"):
        probe(data, tmp_path / "out", new=tmp_path / "new")
    ShardWriter(tmp_path / "alien", vocab_size=400, tokenizer="other").close()
    with pytest.raises(InputError, match="alien was made with another tokenizer"):
        probe(data, tmp_path / "out", new=tmp_path / "alien")
    with pytest.raises(InputError, match="exists"):
        probe(data, tmp_path)
    done = herdlm(
        "anneal-probe",
        "recipes/tiny.toml",
        "--new",
        "n",
        "--tokens",
        "t",
        "--tokenizer",
        "k",
        "--out",
        tmp_path / "o",
        "--held-out",
        "numbers",
    )
    assert done.returncode == 2
    assert "--held-out numbers is not of the form NAME=FOLDER" in done.stderr
