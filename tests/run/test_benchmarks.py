"""The section [evaluate] of a recipe: its tasks, paths and the stage that it asks for."""

import json
from pathlib import Path

import pytest

from herdlm.base.errors import InputError
from herdlm.recipe import read_recipe
from herdlm.run.pipeline import stages_of
from herdlm.run.stage import Context
from herdlm.run.stages.benchmarks import benchmarks_stage
from tests.conftest import small_model
from tests.evaluate.evaluating import ROWS, write_folder, write_rows
from tests.run.conftest import ROOT

TASK = """
title = "Choices"
about = "made up"
kind = "choice"
[items]
files = ["items.jsonl"]
source = "made up"
[prompt]
text = "{{ q }}"
choices = "options"
answer = "right"
"""
RECIPE = """
[data]
sources = ["crawl.warc.gz"]
[pretrain]
seq_len = 64
rows_per_step = 4
steps = 30
mix = [{ source = "web", share = 1.0 }]
anneal_mix = [{ source = "web-anneal", share = 1.0 }]
train = { peak_lr = 1e-3 }
"""


def recipe_in(folder, section):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.toml").write_text(TASK, encoding="utf-8")
    (folder / "recipe.toml").write_text(RECIPE + section, encoding="utf-8")
    return read_recipe(folder / "recipe.toml")


def stage_in(folder, section):
    return {stage.name: stage for stage in stages_of(recipe_in(folder, section))}.get("benchmarks")


def test_a_recipe_without_the_section_has_no_such_stage(tmp_path):
    assert stage_in(tmp_path, "") is None
    assert stage_in(tmp_path, "[quantize]\n") is None


def test_paths_are_relative_to_the_recipe_and_a_recipe_may_move(tmp_path):
    section = '[evaluate]\ntasks = ["arc_easy", "mine.toml"]\ndata = ["items"]\nlimit = 3\n'
    first, second = (stage_in(tmp_path / name, section) for name in ("a", "b"))
    assert first.aids == (str(tmp_path / "a" / "items"), str(tmp_path / "a" / "mine.toml"))
    assert first.settings == second.settings and first.aids != second.aids
    assert first.inputs == {"flagship": "flagship-bf16"}
    assert set(first.settings["tasks"]) == {"arc_easy", "mine"}


def test_other_limits_and_other_tasks_make_another_result(tmp_path):
    kinds = [
        'tasks = ["arc_easy"]',
        'tasks = ["piqa"]',
        'tasks = ["arc_easy"]\nlimit = 3',
        'tasks = ["arc_easy"]\nshots = 1',
    ]
    stages = [stage_in(tmp_path, f'[evaluate]\ndata = ["items"]\n{kind}\n') for kind in kinds]
    assert len({stage.fingerprint(1, {}) for stage in stages}) == 4


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ('tasks = ["arc_eas"]\ndata = ["items"]', "no task 'arc_eas'"),
        ('tasks = ["none.toml"]\ndata = ["items"]', "none.toml does not exist"),
        ('tasks = ["arc_easy", "arc_easy"]\ndata = ["items"]', "name one twice"),
        ('tasks = []\ndata = ["items"]', "tasks"),
        ('tasks = ["arc_easy"]', "data"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_when_the_recipe_is_read(tmp_path, section, message):
    with pytest.raises(InputError, match=message):
        recipe_in(tmp_path, f"[evaluate]\n{section}\n")


def test_the_shipped_recipe_names_a_task_and_items_that_exist():
    recipe = read_recipe(ROOT / "recipes" / "tiny.toml")
    assert recipe.evaluate.tasks == ("arc_easy",)
    assert all(Path(path).is_file() for path in recipe.evaluate.data)


@pytest.fixture
def stage_of_a_run(tmp_path, tokenizer):
    """Runs the stage on a small model into a new folder, by name."""
    recipe = recipe_in(tmp_path, '[evaluate]\ntasks = ["mine.toml"]\ndata = ["items.jsonl"]\n')
    write_rows(tmp_path / "items.jsonl", ROWS)
    [stage] = [stage for stage in stages_of(recipe) if stage.name == "benchmarks"]
    folder = write_folder(tmp_path / "flagship-bf16", small_model(), tokenizer)

    def run(name):
        out, work = tmp_path / name, tmp_path / f"{name}-work"
        for path in (out, work):
            path.mkdir(exist_ok=True)
        counts = benchmarks_stage(Context(stage, recipe, {"flagship": folder}, out, work, quiet=True))
        assert counts["flagship-bf16"]["mine"]["n"] == len(ROWS)
        return out

    return run


def test_equal_stages_write_equal_files(stage_of_a_run):
    found = []
    for name in ("first", "second"):
        out = stage_of_a_run(name)
        found.append({str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert found[0] == found[1]
    assert set(found[0]) > {"index.html", "results.json", "items/mine.js"}


def test_a_killed_stage_goes_on_after_its_last_finished_item(tmp_path, stage_of_a_run):
    whole = stage_of_a_run("whole")
    [records] = (whole / "models").rglob("*.jsonl")
    lines = records.read_text(encoding="utf-8").splitlines(keepends=True)
    marked = lines[1].replace("Which keeps a log?", "Which keeps a log? (asked before)")
    before = tmp_path / "killed-work" / "evaluation" / records.relative_to(whole)
    before.parent.mkdir(parents=True)
    before.write_text(lines[0] + marked + lines[2] + lines[3][:9], encoding="utf-8")
    [again] = (stage_of_a_run("killed") / "models").rglob("*.jsonl")
    found = again.read_text(encoding="utf-8").splitlines(keepends=True)
    assert found[:3] == [lines[0], marked, lines[2]]
    assert [json.loads(line)["answer"] for line in found[3:]] == [json.loads(line)["answer"] for line in lines[3:]]
