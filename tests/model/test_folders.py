"""What a user may name: a model folder, a run, and what the answer is to anything else."""

import json
from pathlib import Path

import pytest

from herdlm.base.errors import DamagedError, InputError
from herdlm.model.folders import model_folder, model_name


@pytest.fixture
def run(tmp_path):
    """A run folder as it is when finished, its flagship called big."""
    root = tmp_path / "run"
    for stage in ("flagship-bf16", "small-bf16"):
        (root / "stages" / stage).mkdir(parents=True)
        (root / "stages" / stage / "config.json").write_text("{}")
    (root / "models").mkdir()
    (root / "models" / "big").symlink_to("../stages/flagship-bf16")
    (root / "models" / "small").symlink_to("../stages/small-bf16")
    (root / "recipe.json").write_text(json.dumps({"herd": {"flagship": "big"}}))
    return root


def test_a_run_means_its_flagship(run):
    found = model_folder(run)
    assert found == run / "models" / "big"
    assert model_name(found) == "big"


def test_a_model_folder_means_itself_and_keeps_the_name_of_its_link(run, monkeypatch):
    small = run / "models" / "small"
    assert model_folder(small) == small
    assert model_name(small) == "small"
    monkeypatch.chdir(run.parent)
    assert model_name(model_folder(Path("run/models/../models/small"))) == "small"
    monkeypatch.chdir(run / "stages" / "small-bf16")
    assert model_name(model_folder(Path())) == "small-bf16"


def test_what_is_no_model_is_refused_with_what_was_looked_for(run, tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist.*config\.json"):
        model_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"recipe\.json is a file"):
        model_folder(run / "recipe.json")
    with pytest.raises(InputError, match=r"neither a model nor a run: it has no config\.json and no recipe\.json"):
        model_folder(tmp_path)
    with pytest.raises(InputError, match=r"several models.*models/big.*models/small"):
        model_folder(run / "models")


def test_an_unfinished_run_is_refused(run):
    (run / "models" / "big").unlink()
    with pytest.raises(InputError, match=r"no flagship yet: looked for .*models/big/config\.json.*Run its recipe"):
        model_folder(run)
    (run / "models" / "big").symlink_to("../stages/gone")
    with pytest.raises(InputError, match="no flagship yet"):
        model_folder(run)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"herd": {"flagship": 3}}'])
def test_a_damaged_recipe_is_named(run, content):
    (run / "recipe.json").write_text(content)
    with pytest.raises(DamagedError, match=r"recipe\.json"):
        model_folder(run)


def test_an_adapter_alone_is_named_as_one(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="is an adapter without its model. Fine-tune with --merge"):
        model_folder(tmp_path)
