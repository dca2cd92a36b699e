"""A run whose files are not there is refused before anything starts."""

import pytest

from herdlm.base.errors import InputError
from herdlm.recipe import read_recipe
from herdlm.run import execute
from herdlm.run.needed_files import check_needed_files
from herdlm.run.post_training import post_training
from tests.run.conftest import ROOT

RECIPE = ROOT / "recipes" / "llama3.1-8b.toml"


def test_a_run_names_each_missing_file_and_its_key(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "stages_of", post_training)
    with pytest.raises(InputError) as raised:
        execute.run(read_recipe(RECIPE), tmp_path / "run")
    said = str(raised.value)
    assert said.startswith("files that the recipe names do not exist")
    for name in ("dialogs: ", "preferences: ", "prompts: ", "gate: ", "exam: "):
        assert f"align.data.{name}" in said
    assert f"align.gate.data: {ROOT / 'recipes/people/benchmarks'}" in said
    assert f"align.data.dialogs: {ROOT / 'recipes/people/code.jsonl'}" in said
    assert not (tmp_path / "run").exists()


def test_only_the_files_that_the_stages_read_are_needed(tmp_path):
    recipe = read_recipe(RECIPE)
    check_needed_files(recipe, [])  # pre-training reads none of them
    gate = [stage for stage in post_training(recipe) if stage.name == "seeds-gate"]
    with pytest.raises(InputError, match="do not exist: align.gate.data: [^;]*$") as raised:
        check_needed_files(recipe, gate)
    assert "align.data" not in str(raised.value)
    (tmp_path / "chats.jsonl").write_text("")
    (tmp_path / "benchmarks").mkdir()
    keys = [f"align.data.{key}=[]" for key in ("preferences", "prompts", "gate", "exam")]
    keys += [
        "align.synth=false",
        f"align.data.dialogs=['{tmp_path}/chats.jsonl:0.5']",
        f"align.gate.data=['{tmp_path}/benchmarks']",
    ]
    mine = read_recipe(RECIPE, keys)
    check_needed_files(mine, post_training(mine))
