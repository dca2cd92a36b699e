"""Checkpoints that stay: published with the model, and exported with the weights of their step."""

import pytest
import torch

from herdlm.base.artifact import read_manifest
from herdlm.base.errors import DamagedError, InputError
from herdlm.model.hf import load_folder
from herdlm.pretrain.pretrain import pretrain
from herdlm.recipe import read_recipe
from herdlm.train.checkpoint import Checkpointer
from herdlm.train.export import export_checkpoint
from tests.run.conftest import ROOT, herdlm
from tests.scaling.test_anneal_probe import data  # noqa: F401 - a fixture

KEYS = [
    "tokenizer.vocab_size=400",
    "tokens.skill_documents=0",
    "pretrain.steps=25",
    "pretrain.rows_per_step=4",
    "pretrain.seq_len=16",
    'pretrain.mix=[{source = "web", share = 1}]',
    "pretrain.train.validate_every_steps=5",
    'pretrain.anneal_mix=[{source = "web", share = 1}]',
    "pretrain.train.anneal_steps=5",
    "pretrain.train.checkpoint_every_steps=5",
    "pretrain.train.milestone_every_steps=10",
    "track.tensorboard='on'",
]


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):  # noqa: F811
    """(folder, weights at each saved step) of a run with milestones."""
    out, seen = tmp_path_factory.mktemp("milestones") / "model", {}
    plain = Checkpointer.save

    def save(self, step):
        seen[step] = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        plain(self, step)

    recipe = read_recipe(ROOT / "recipes" / "tiny.toml", KEYS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpointer, "save", save)
        pretrain(recipe.job("small"), tokens=data / "tokens", tokenizer=data / "tokenizer", out=out)
    return out, seen


def test_milestones_are_published_and_part_of_the_manifest(model):
    out, _ = model
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000010", "step-00000020"]
    files = read_manifest(out).files
    assert "checkpoints/step-00000010/state.json" in files
    assert any(name.startswith("tensorboard/") for name in files)


def test_a_milestone_is_exported_with_the_weights_of_its_step(model, tmp_path):
    out, seen = model
    done = herdlm("export-hf", out / "checkpoints" / "step-00000010", "--out", tmp_path / "hf", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    for name, value in load_folder(tmp_path / "hf").named_parameters():
        assert torch.equal(value, seen[10][name]), name
    assert (tmp_path / "hf" / "tokenizer.json").is_file()


def test_a_damaged_milestone_is_refused(model, tmp_path):
    out, _ = model
    (tensors,) = (out / "checkpoints" / "step-00000020").glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-7])
    with pytest.raises(DamagedError, match="is not what was saved"):
        export_checkpoint(out / "checkpoints" / "step-00000020", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_a_milestone_that_is_never_saved_is_refused():
    with pytest.raises(InputError, match="no multiple of checkpoint_every_steps 5"):
        read_recipe(ROOT / "recipes" / "tiny.toml", [*KEYS, "pretrain.train.milestone_every_steps=12"])
