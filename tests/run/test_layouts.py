"""Stages on several processes: models, samples, counts and errors are those of one process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from herdlm.align.reward import sequence_scores
from herdlm.align.reward_workers import open_reward_model
from herdlm.base import progress
from herdlm.base.errors import InputError
from herdlm.evaluate.engines import EngineOptions
from herdlm.model.hf import load_folder
from herdlm.recipe import read_recipe
from herdlm.run.pipeline import stages_of
from herdlm.run.stage import RunFolder
from herdlm.run.worker import run_stage
from tests.align.conftest import dialogs, folder, pairs, write_lines  # noqa: F401 - a fixture
from tests.ray_cluster import two_nodes
from tests.run.conftest import ROOT, herdlm, manifest
from tests.run.test_files import RECIPE

TOLERANCE = 1e-3  # of a weight's largest value, after some dozen steps of Adam in float32
ONE_ROUND = ("align.rounds=1", "align.rejection.prompts=12", "align.reward.train.weight_decay=0.0")


def run(home, name, *keys, seconds=280):
    more = [part for key in (*ONE_ROUND, *keys) for part in ("--set", key)]
    return herdlm("run", home / "mine.toml", "--out", home / name, *more, seconds=seconds)


@pytest.fixture(scope="module")
def home(folder, tmp_path_factory):  # noqa: F811
    """A folder with a recipe on files, what it names, and its run on one process."""
    home = tmp_path_factory.mktemp("layouts")
    shutil.copytree(folder / "base", home / "base")
    write_lines(home / "chats.jsonl", dialogs(0, 40))
    write_lines(home / "pairs.jsonl", pairs(0, 40))
    (home / "mine.toml").write_text(RECIPE)
    done = run(home, "one")
    assert done.returncode == 0, done.stderr
    return home


@pytest.mark.slow
@pytest.mark.parametrize("layout", [{"dp_shard": 2}, {"tp": 2}])
def test_two_processes_make_the_models_of_one(home, layout):
    name = "-".join(layout)
    table = ", ".join(f"{key} = {size}" for key, size in layout.items())
    done = run(home, name, "compute.processes=2", f"align.parallel={{ {table} }}")
    assert done.returncode == 0, done.stderr
    for stage in ("seeds-sft", "round-1-reward", "round-1-sft", "round-1-dpo"):
        one, two = (dict(load_folder(home / each / "stages" / stage).named_parameters()) for each in ("one", name))
        moved = False
        for weight, value in one.items():
            assert (two[weight] - value).abs().max() < TOLERANCE * value.abs().max() + 1e-5, (stage, weight)
            moved |= bool((two[weight] != value).any())
        assert moved, "the two runs computed in one order, so that the layout was not used"
        counts, expected = (manifest(home / each, stage)["counts"] for each in (name, "one"))
        assert counts.keys() == expected.keys()
        for key in ("steps", "dialogs", "pairs", "held_out_pairs", "parts", "too_long", "warmup_steps"):
            assert counts.get(key) == expected.get(key)
        assert counts["last_loss"] == pytest.approx(expected["last_loss"], abs=1e-3)
    samples = [home / each / "stages" / "round-1-samples" / "samples.jsonl" for each in ("one", name)]
    assert [row["prompt"] for row in map(json.loads, samples[0].read_text().splitlines())] == [
        row["prompt"] for row in map(json.loads, samples[1].read_text().splitlines())
    ]
    assert not list((home / name / "working").iterdir())


@pytest.fixture
def begun(home, tmp_path):
    """A copy of the run on one process without the stage seeds-sft and what follows it."""
    shutil.copytree(home / "one", tmp_path / "run", symlinks=True)
    for path in (tmp_path / "run" / "stages").iterdir():
        if path.name not in ("pretrain-flagship", "files"):
            shutil.rmtree(path)
    return tmp_path / "run"


def torchrun(home, out, stage, *keys):
    more = [part for key in (*ONE_ROUND, "compute.device=cpu", *keys) for part in ("--set", key)]
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "herdlm.cli"),
            *("run", str(home / "mine.toml"), "--out", str(out), "--stage", stage, *more),
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.slow
def test_one_stage_is_made_on_the_processes_that_torchrun_started(home, begun):
    done = torchrun(home, begun, "seeds-sft")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Made seeds-sft") == 1
    one, two = (dict(load_folder(at / "stages" / "seeds-sft").named_parameters()) for at in (home / "one", begun))
    for weight, value in one.items():
        assert (two[weight] - value).abs().max() < TOLERANCE * value.abs().max() + 1e-5, weight
    found, expected = (manifest(at, "seeds-sft") for at in (begun, home / "one"))
    assert found["fingerprint"] == expected["fingerprint"]
    assert torchrun(home, begun, "seeds-sft").stdout.count("is up to date") == 1
    early = torchrun(home, begun, "round-1-dpo")
    assert early.returncode != 0
    assert "stage round-1-dpo needs round-1-select, which is not finished" in early.stderr
    alone = torchrun(home, begun, "round-1-samples")
    assert "stage round-1-samples computes in one process" in alone.stderr


def test_one_stage_is_made_in_this_process(home, begun):
    keys = [part for key in ONE_ROUND for part in ("--set", key)]
    done = herdlm("run", home / "mine.toml", "--out", begun, "--stage", "seeds-sft", *keys)
    assert done.returncode == 0, done.stderr
    assert manifest(begun, "seeds-sft")["content"] == manifest(home / "one", "seeds-sft")["content"]
    both = herdlm("run", home / "mine.toml", "--out", begun, "--stage", "seeds-sft", "--until", "files")
    assert both.returncode == 2
    assert "Drop --until and --from" in both.stderr


@pytest.mark.slow
def test_the_error_of_ranks_is_one_line_that_names_the_stage(home, begun):
    keys = [part for key in (*ONE_ROUND, "compute.processes=2", "align.parallel.tp=3") for part in ("--set", key)]
    done = herdlm("run", home / "mine.toml", "--out", begun, "--until", "seeds-sft", *keys)
    assert done.returncode == 2
    assert "stage seeds-sft: parallel.tp x cp x pp" in done.stderr
    assert "Layouts that work" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (begun / "stages" / "seeds-sft").exists()


@pytest.mark.slow
def test_the_progress_of_the_first_rank_reaches_the_run(home, begun, monkeypatch):
    recipe = read_recipe(home / "mine.toml", (*ONE_ROUND, "compute.processes=2", "compute.device=cpu"))
    (stage,) = [stage for stage in stages_of(recipe) if stage.name == "seeds-sft"]
    heard = []
    monkeypatch.setattr(progress, "report_to", heard.append)
    run_stage(stage, recipe, RunFolder(begun), {}, "made for a test")
    steps = manifest(begun, "seeds-sft")["counts"]["steps"]
    assert heard[-1][:4] == ("seeds-sft", steps, steps, "steps")
    assert len({message[1] for message in heard}) == len(heard), "both ranks reported"


@pytest.mark.slow
def test_a_killed_run_takes_its_ranks_with_it_and_goes_on(home, begun):
    changes = (
        *ONE_ROUND,
        "compute.processes=2",
        "align.seed_sft.epochs=20",
        "align.seed_sft.train.checkpoint_every_steps=5",
    )
    keys = [part for key in changes for part in ("--set", key)]
    command = [sys.executable, "-m", "herdlm.cli", "run", home / "mine.toml", "--out", begun, "--until", "seeds-sft"]
    process = subprocess.Popen([*map(str, command), *keys], cwd=ROOT, stderr=subprocess.DEVNULL)
    checkpoint = begun / "working" / "seeds-sft" / "checkpoints" / "step-00000010"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    begin = "".join((checkpoint.parents[1] / "events.jsonl").read_text().splitlines(keepends=True)[:10])
    assert not (begun / "stages" / "seeds-sft").exists(), "the run was over before it could be killed"
    done = herdlm("run", *command[4:], *keys)  # which waits until no process of the first holds the folder
    assert done.returncode == 0, done.stderr
    log = (begun / "stages" / "seeds-sft" / "events.jsonl").read_text()
    assert log.startswith(begin), "the second run did the first steps again"
    assert manifest(begun, "seeds-sft")["counts"]["steps"] > 10


def answers(out):
    """The files of samples, and of those that were kept, in a run."""
    names = ("samples/samples.jsonl", "select/kept.jsonl")
    return [(out / "stages" / f"round-1-{name}").read_bytes() for name in names]


def made(home, begun, *keys):
    """The :func:`answers` of stages that are made anew with these keys."""
    recipe = read_recipe(home / "mine.toml", (*ONE_ROUND, "compute.device=cpu", *keys))
    at = RunFolder(begun)
    for name in ("seeds-sft", "round-1-reward"):
        shutil.copytree(home / "one" / "stages" / name, at.stage(name), dirs_exist_ok=True)
    for stage in stages_of(recipe):
        if stage.name in ("round-1-samples", "round-1-verdicts", "round-1-select"):
            shutil.rmtree(at.stage(stage.name), ignore_errors=True)
            run_stage(stage, recipe, at, {}, "made for a test")
    files = (at.stage("round-1-samples") / "samples.jsonl", at.stage("round-1-select") / "kept.jsonl")
    return [path.read_bytes() for path in files]


@pytest.mark.parametrize(
    "keys",
    [
        ("align.workers=2",),
        pytest.param(("align.tensor_parallel=2",), marks=pytest.mark.slow),
        pytest.param(("align.workers=2", "align.pipeline_parallel=2"), marks=pytest.mark.slow),
    ],
)
def test_any_number_of_workers_draws_and_keeps_the_same_answers(home, begun, keys):
    found, expected = made(home, begun, *keys), answers(home / "one")
    if keys != ("align.workers=2",):  # several processes share a model and sum in another order
        found, expected = list(map(words_of, found)), list(map(words_of, expected))
    assert found == expected


def words_of(content):
    """The texts of a file of samples or of dialogs, without log-probabilities and scores."""
    rows = map(json.loads, content.decode().splitlines())
    return [row.get("messages") or [sample["answer"] for sample in row["samples"]] for row in rows]


@pytest.mark.slow
def test_workers_on_a_cluster_draw_and_keep_the_same_answers(home, begun):
    with two_nodes() as cluster:
        assert made(home, begun, f"align.cluster='{cluster.address}'", "align.workers=2") == answers(home / "one")


def test_a_reward_model_scores_the_same_in_workers(home):
    sequences = [[1, 2, 3 + number // 200, number % 200, *range(number % 7)] for number in range(600)]
    reward = home / "one" / "stages" / "round-1-reward"
    found = {}
    for workers in (None, 2):
        with open_reward_model(reward, EngineOptions("cpu", "float32", workers=workers)) as model:
            found[workers] = sequence_scores(model, sequences, title="scores", quiet=True)
    assert found[2] == pytest.approx(found[None], abs=1e-6)
    assert len(set(found[2])) > 500
    with open_reward_model(reward, EngineOptions("cpu", "bfloat16")) as model:
        fast = sequence_scores(model, sequences, title="scores", quiet=True)
    assert fast != found[None]
    assert fast == pytest.approx(found[None], abs=0.05)


def test_workers_that_cannot_be_are_refused(home, begun):
    with pytest.raises(InputError, match="tensor_parallel"):
        made(home, begun, "align.tensor_parallel=3")
