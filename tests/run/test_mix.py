"""A run whose fine-tuning data is mixed by capability."""

import json
import shutil

import pytest

from tests.align.conftest import dialogs, folder, pairs, write_lines  # noqa: F401 - a fixture
from tests.run.conftest import herdlm, manifest
from tests.run.test_files import RECIPE

PARTS = "align.mix.parts={ common = { share = 0.5, tasks = ['common'] }, rare = { share = 0.5 } }"


@pytest.fixture
def home(folder, tmp_path):  # noqa: F811
    """A folder with a recipe, a model, pairs, and 60 dialogs of which every sixth is of a rare task."""
    shutil.copytree(folder / "base", tmp_path / "base")
    rows = [row | {"task": "common" if number % 6 else "rare"} for number, row in enumerate(dialogs(0, 60))]
    write_lines(tmp_path / "chats.jsonl", rows)
    write_lines(tmp_path / "pairs.jsonl", pairs(0, 40))
    (tmp_path / "mine.toml").write_text(RECIPE)
    return tmp_path


@pytest.mark.slow
def test_the_mix_decides_what_a_round_is_fine_tuned_on(home):
    keys = ("align.sft.epochs=false", "align.sft.steps=5", "align.mix.max_repeats=9", PARTS)
    more = [part for key in keys for part in ("--set", key)]
    done = herdlm("run", home / "mine.toml", "--out", home / "run", "--until", "round-1-sft", *more, seconds=300)
    assert done.returncode == 0, done.stderr
    counts = manifest(home / "run", "round-1-sft")["counts"]
    assert counts["steps"] == 5
    common, rare = counts["mix"]["common"], counts["mix"]["rare"]
    assert rare["rows"] < common["rows"] / 3 and rare["repeats"] > 1 > common["repeats"]
    assert rare["share"] == pytest.approx(0.5, abs=0.02) and rare["asked"] == 0.5
    assert rare["used"] + common["used"] == counts["dialogs"]
    assert json.loads((home / "run" / "stages" / "round-1-sft" / "training.json").read_text())["mix"] == counts["mix"]
    assert "mix" not in manifest(home / "run", "seeds-sft")["counts"]


@pytest.mark.slow
def test_a_task_of_no_part_stops_the_run_before_anything_is_trained(home):
    write_lines(home / "chats.jsonl", [row | {"task": "poems"} for row in dialogs(0, 10)])
    done = herdlm("run", home / "mine.toml", "--out", home / "run", "--set", PARTS, seconds=120)
    assert done.returncode == 2 and "align.mix names no part for the tasks poems" in done.stderr
    assert not (home / "run" / "stages" / "seeds-sft").exists()
