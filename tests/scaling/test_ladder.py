"""Ladders: sizes and steps, trained as a recipe trains, killed midway and resumed, shared among machines."""

import json
from pathlib import Path

import pytest

from herdlm.base.errors import InputError
from herdlm.base.standalone import ClaimedError
from herdlm.pretrain.job import PretrainJob
from herdlm.pretrain.pretrain import pretrain
from herdlm.recipe import read_recipe
from herdlm.scaling import ladder as ladders
from herdlm.scaling import trained
from herdlm.scaling.ladder import plan_ladder, run_ladder, scaled_shape
from herdlm.scaling.points import read_points
from tests.run.conftest import ROOT, herdlm
from tests.scaling.test_anneal_probe import sentences, write

KEYS = [
    "tokenizer.vocab_size=400",
    "tokens.skill_documents=0",
    "pretrain.steps=60",
    "pretrain.rows_per_step=2",
    "pretrain.seq_len=32",
    "pretrain.train.anneal_steps=12",
    "pretrain.train.warmup_steps=5",
    "pretrain.train.checkpoint_every_steps=5",
    'pretrain.mix=[{source = "web", share = 1}]',
    'pretrain.anneal_mix=[{source = "web", share = 1}]',
]
BUDGETS = (2.4e8, 4.8e8)
MODELS = ("ladder-1", "ladder-2")


def herd(*more):
    return read_recipe(ROOT / "recipes" / "tiny.toml", [*KEYS, *more]).herd_job()


@pytest.fixture(scope="module")
def data(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder")
    for name, count in (("web", 150), ("web-anneal", 50), ("web-validation", 20)):
        write(folder / "tokens" / name, tokenizer, sentences(name, count))
    (folder / "tokenizer").mkdir()
    tokenizer.save(folder / "tokenizer")
    return folder


def rungs(data, *more, **options):
    return plan_ladder(herd(*more), data / "tokens", **({"budgets": BUDGETS, "models": MODELS} | options))


def run(data, out, **options):
    return run_ladder(rungs(data), tokens=data / "tokens", tokenizer=data / "tokenizer", out=out, **options)


def test_runs_have_their_compute_and_parts_keep_their_share(data):
    made = rungs(data)
    assert len(made) == 4 and [r.flops for r in made] == sorted(r.flops for r in made)
    for rung in made:
        config = rung.job.pretrain
        assert rung.flops == pytest.approx(rung.budget, rel=0.03)
        assert rung.tokens == config.steps * 64
        assert config.train.anneal_steps / config.steps == pytest.approx(12 / 60, abs=0.02)
        assert config.train.peak_lr == herd().job("ladder-1").pretrain.train.peak_lr
    (fixed,) = rungs(data, budgets=(), ratios=(0.5,), models=("ladder-1",))
    assert fixed.tokens == pytest.approx(0.5 * fixed.params, rel=0.02) and fixed.budget is None


def test_shapes_shrink_with_the_flagship(data):
    made = rungs(data, models=(), shapes=3, budgets=(2e10,))
    sizes = sorted(rung.params for rung in made)
    assert len(set(sizes)) == 3 and sizes[-1] == herd().sizes(["flagship"])[0]
    big = read_recipe(ROOT / "recipes" / "llama3.1-8b.toml").job("8b").model
    half = scaled_shape(big, 0.5)
    assert (half.heads, half.kv_heads, half.head_size, half.layers) == (16, 4, 128, 16)


def test_what_cannot_be_a_ladder_is_refused(data):
    with pytest.raises(InputError, match="needs compute"):
        rungs(data, budgets=())
    with pytest.raises(InputError, match="fewer than 20"):
        rungs(data, budgets=(1e6,))
    with pytest.raises(InputError, match="the recipe has no model tall"):
        rungs(data, models=("tall",))


def test_a_ladder_killed_midway_resumes_and_gives_the_same_points(data, tmp_path, monkeypatch):
    whole = run(data, tmp_path / "whole")
    assert whole["complete"] and whole["done"] == 4
    points = read_points(Path(whole["points"]))
    assert len(points) == 4 and (points.loss > 1).all() and sorted(set(points.budget)) == list(BUDGETS)

    calls = []

    def killed(job: PretrainJob, **folders):
        calls.append(job.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return pretrain(job, **folders)

    monkeypatch.setattr(trained, "pretrain", killed)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "cut")
    assert len(read_points(tmp_path / "cut" / "points.csv")) == 2
    monkeypatch.setattr(trained, "pretrain", pretrain)
    again = []
    assert run(data, tmp_path / "cut", say=again.append)["complete"]
    assert len(again) == 2  # what was done is not trained again
    assert (tmp_path / "cut" / "points.csv").read_text() == (tmp_path / "whole" / "points.csv").read_text()

    with pytest.raises(InputError, match="of another ladder"):
        other = rungs(data, models=("ladder-1",))
        run_ladder(other, tokens=data / "tokens", tokenizer=data / "tokenizer", out=tmp_path / "cut")


def test_a_run_that_another_machine_trains_is_left_to_it(data, tmp_path, monkeypatch):
    def busy(job, **folders):
        if job.name.startswith("ladder-1"):
            raise ClaimedError("another process is writing it", "Wait")
        return pretrain(job, **folders)

    monkeypatch.setattr(trained, "pretrain", busy)
    result = run(data, tmp_path / "shared")
    assert not result["complete"] and result["done"] == 2
    assert "ladder-1" not in (tmp_path / "shared" / "points.csv").read_text()


def test_parts_of_a_ladder_are_disjoint_and_together_whole(data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(ladders, "trained_once", lambda job, **_: seen.append(job.name))
    for part in (1, 2, 3):
        run(data, tmp_path / "parts", only=(part, 3))
    assert sorted(seen) == sorted(rung.name for rung in rungs(data))
    with pytest.raises(InputError, match="is no part"):
        run(data, tmp_path / "parts", only=(4, 3))


def test_the_command_lists_and_trains(data, tmp_path):
    given = [part for key in KEYS for part in ("--set", key)]
    command = ["scaling", "ladder", ROOT / "recipes" / "tiny.toml", "--tokens", data / "tokens", "--tokenizer"]
    command += [
        data / "tokenizer",
        "--models",
        "ladder-1",
        "--ratios",
        "0.2",
        "--out",
        tmp_path / "out",
        *given,
        "--json",
    ]
    listed = herdlm(*command, "--list")
    assert listed.returncode == 0, listed.stderr
    assert [row["run"] for row in json.loads(listed.stdout)["runs"]] == ["ladder-1-0.2x"]
    done = herdlm(*command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"]
    assert (tmp_path / "out" / "points.csv").read_text().startswith("run,params,tokens,flops,budget,loss")
