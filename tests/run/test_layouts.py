"""Stages that train on several processes: a run's models, counts and errors are those of one process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from herdlm.model.hf import load_folder
from tests.align.conftest import dialogs, folder, pairs, write_lines  # noqa: F401 - a fixture
from tests.run.conftest import ROOT, herdlm, manifest
from tests.run.test_files import RECIPE

TOLERANCE = 1e-3  # of a weight's largest value, after some dozen steps of Adam in float32
ONE_ROUND = ("align.rounds=1", "align.rejection.prompts=12", 'align.reward.train.weight_decay=0.0')


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
    samples = [home / each / "stages" / "round-1-files-samples" / "samples.jsonl" for each in ("one", name)]
    assert [row["prompt"] for row in map(json.loads, samples[0].read_text().splitlines())] == [
        row["prompt"] for row in map(json.loads, samples[1].read_text().splitlines())
    ]
    assert not list((home / name / "working").iterdir())
