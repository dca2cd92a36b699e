"""Epoch caps over a whole run: what is read is what was planned, and what cannot be is refused by key."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.plan.cost import describe, lines
from herdlm.pretrain.batches import open_batches
from herdlm.pretrain.config import PretrainConfig
from herdlm.pretrain.mix import plan_mix, source_tokens
from herdlm.pretrain.pretrain import pretrain
from herdlm.recipe import read_recipe
from herdlm.tokens.shards import ShardWriter
from tests.run.conftest import ROOT, herdlm
from tests.scaling.test_anneal_probe import KEYS, data, write  # noqa: F401 - a fixture

SIZES = {"web": 4000, "web-anneal": 900, "skills": 1500}


def mix(**shares):
    return [{"source": name.replace("_", "-"), "share": share} for name, share in shares.items()]


def pretraining(**keys):
    train = {"peak_lr": 1e-3, "anneal_steps": keys.pop("anneal_steps", 50)}
    base = {
        "seq_len": 8,
        "rows_per_step": 4,
        "steps": 300,
        "mix": mix(web=0.6, skills=0.4),
        "anneal_mix": mix(web_anneal=1),
    }
    return PretrainConfig.model_validate(base | {"train": train} | keys)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Shards of the sizes above; of skills, documents of 5 tokens stay whole."""
    folder = tmp_path_factory.mktemp("tokens")
    for name, size in SIZES.items():
        whole = name == "skills"
        writer = ShardWriter(folder / name, vocab_size=300, tokenizer="t", with_targets=whole)
        for number in range(size // 5):
            tokens = [(number + place) % 300 for place in range(5)]
            writer.add(tokens, text_bytes=9, **({"targets": [False] + [True] * 4} if whole else {}))
        writer.close()
    return folder


def test_a_run_reads_a_capped_source_as_often_as_the_cap_says(shards):
    config = pretraining(max_epochs={"skills": 1.5}, anneal_mix=mix(web_anneal=0.5, skills=0.5))
    sizes = source_tokens(shards, config)
    assert sizes == SIZES | {"skills": 1500 - 300}
    plan = plan_mix(config, sizes)
    asked = (250 * 0.4 + 50 * 0.5) * 32 / 1200
    assert plan.sources["skills"].wanted_epochs == pytest.approx(asked)
    assert plan.sources["skills"].epochs == pytest.approx(1.5)
    assert plan.sources["web"].epochs > plan.sources["web"].wanted_epochs
    (main, wanted, read), (anneal, *_) = plan.changed
    assert (main, anneal) == ("pretrain.mix", "pretrain.anneal_mix")
    # the same fraction is given up in both mixes
    assert read["skills"] / read["web"] / (wanted["skills"] / wanted["web"]) == pytest.approx(
        plan.changed[1][2]["skills"] / plan.changed[1][2]["web-anneal"]
    )
    assert read["skills"] < wanted["skills"]
    batches = open_batches(config, shards, seed=0, pad=0)
    shares = [dict(zip([s.source.name for s in m.rows], m.shares, strict=True)) for m, _ in batches.phases]
    assert shares[0] == pytest.approx(read)
    tokens = dict.fromkeys(SIZES, 0)
    for (mixture, steps), rows in zip(batches.phases, batches.rows_per_step, strict=True):
        for name, count in mixture.read_after(steps * rows).items():
            tokens[name] += 8 * count
    assert tokens["skills"] / 1200 == pytest.approx(1.5, abs=2 * 8 / 1200)  # a row of each phase
    assert sum(tokens.values()) == 300 * 32


@given(
    caps=st.dictionaries(st.sampled_from(sorted(SIZES)), st.floats(0.2, 20)),
    shares=st.lists(st.floats(0.05, 1), min_size=6, max_size=6),
    phase=st.integers(1000, 7000),
)
@settings(max_examples=100, deadline=None)
def test_no_source_is_read_more_often_than_its_cap_or_the_run_is_refused(caps, shares, phase):
    config = pretraining(
        mix=mix(web=shares[0], skills=shares[1]),
        anneal_mix=mix(web_anneal=shares[2], skills=shares[3]),
        mix_phases=[{"from_tokens": phase, "mix": mix(web=shares[4], web_anneal=shares[5])}],
        max_epochs=caps,
    )
    try:
        plan = plan_mix(config, SIZES)
    except InputError as error:
        assert "pretrain.max_epochs of" in str(error)
        assert caps
        return
    total = sum(reading.epochs * reading.tokens for reading in plan.sources.values())
    assert total == pytest.approx(300 * 32)
    for name, reading in plan.sources.items():
        assert reading.epochs <= caps.get(name, np.inf) * (1 + 1e-4)
        assert reading.max_epochs == caps.get(name)
    again = plan_mix(plan.config, SIZES)
    for name, reading in again.sources.items():
        assert reading.wanted_epochs == pytest.approx(plan.sources[name].epochs)


def test_without_caps_the_recipe_stays_as_it_is():
    config = pretraining()
    assert plan_mix(config, SIZES).config == config
    assert plan_mix(pretraining(max_epochs={"web": 50.0}), SIZES).config == config


def test_what_no_shares_can_keep_is_refused_by_its_keys():
    config = pretraining(max_epochs={"web-anneal": 1.0, "web": 3})
    with pytest.raises(InputError) as caught:
        plan_mix(config, SIZES)
    message = str(caught.value)
    assert "pretrain.anneal_mix read 1,600 tokens" in message
    assert "pretrain.max_epochs of web-anneal leaves 900" in message
    with pytest.raises(InputError, match="pretrain.mix read 8,000 tokens.*of skills, web leaves 4,400"):
        plan_mix(pretraining(max_epochs={"skills": 0.6 - 1 / 3, "web": 1}), SIZES)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pretrain.max_epochs={wab = 2}", "pretrain.max_epochs.wab: no mix reads wab, only skills, web, web-anneal"),
        ("pretrain.max_epochs={web = 0}", "greater than 0"),
        ("pretrain.mix=[{source = 'web', share = 1}, {source = 'web', share = 2}]", "names the source web twice"),
        ("tokens.sources={german = {languages = ['de']}}", "choose from german, german-anneal, skills"),
        ("tokens.sources={x = {languages = ['de']}, y = {languages = ['de']}}", "x and y both take documents"),
        ("tokens.sources={x = {languages = ['it']}}", "tokens.sources.x.languages names 'it'"),
    ],
)
def test_keys_that_do_not_fit_are_named(override, message):
    with pytest.raises(InputError) as caught:
        read_recipe(ROOT / "recipes" / "tiny.toml", [override])
    assert message in str(caught.value)


def test_a_training_says_what_its_caps_did(data, tmp_path, tokenizer):  # noqa: F811
    tokens = tmp_path / "tokens"
    for name, texts in (("web", ["some words here"] * 200), ("web-anneal", ["a few better words"] * 30)):
        write(tokens / name, tokenizer, texts)
    write(tokens / "web-validation", tokenizer, ["held out words"] * 20)
    both = "[{source = 'web', share = 0.5}, {source = 'web-anneal', share = 0.5}]"
    keys = [*KEYS, f"pretrain.mix={both}", "pretrain.mix_phases=[]", "pretrain.max_epochs={web-anneal = 2}"]
    recipe = read_recipe(ROOT / "recipes" / "tiny.toml", keys)
    counts = pretrain(recipe.job("small"), tokens=tokens, tokenizer=data / "tokenizer", out=tmp_path / "model")
    plan = counts["mix_plan"]
    assert plan["sources"]["web-anneal"]["wanted_epochs"] > 2
    assert counts["epochs"]["web-anneal"] == pytest.approx(2, abs=0.2)
    assert plan["changed"][0]["mix"] == "pretrain.mix"
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert manifest["counts"]["mix_plan"] == plan
    description = describe(recipe.herd_job(), tokens=tokens)
    assert description["timeline"][0]["mix"] == pytest.approx(plan["changed"][0]["read"])
    assert "web-anneal           2 epochs of" in "\n".join(lines(description))
    assert "at most 2 epochs" in "\n".join(lines(describe(recipe.herd_job())))
    refused = read_recipe(ROOT / "recipes" / "tiny.toml", [*keys, "pretrain.max_epochs={web-anneal = 2, web = 1}"])
    with pytest.raises(InputError, match="pretrain.max_epochs of web, web-anneal leaves"):
        pretrain(refused.job("small"), tokens=tokens, tokenizer=data / "tokenizer", out=tmp_path / "other")


def test_describe_tells_epochs_from_the_command_line(shards):
    tiny = [
        "describe",
        "recipes/tiny.toml",
        "--tokens",
        shards,
        "--set",
        "pretrain.max_epochs={web = 200.0}",
        "--set",
        "pretrain.steps=1000",
    ]
    done = herdlm(*tiny)
    assert done.returncode == 0, done.stderr
    # 850 steps of 2,048 tokens, of which web has 0.4
    assert "web                  174 epochs of 4,000 tokens, at most 200" in done.stdout
    done = herdlm(*tiny, "--set", "pretrain.max_epochs={web = 100.0, skills = 10.0}")
    assert done.returncode == 2
    assert (
        "herdlm: pretrain.mix read 1,740,800 tokens, but pretrain.max_epochs of skills, web leaves 412,000"
        in done.stderr
    )
