"""Recipes whose small model is made from layers of the flagship: as it is, or trained on, with it as teacher."""

import pytest
import torch

from herdlm.base.errors import InputError
from herdlm.model.hf import load_folder
from herdlm.run.execute import run
from herdlm.run.pipeline import stages_of
from tests.run.conftest import herdlm
from tests.run.test_starts import DATA, FROM, PRETRAIN, SMALL, folder, names, recipe

__all__ = ["folder"]

SHRUNK = 'small = { shrink = { from = "flagship", layers = 2 } }\n'
NEW_FLAGSHIP = "[herd.models]\nflagship = { dim = 32, layers = 4, heads = 2, kv_heads = 1, ffn_dim = 64 }\n"


def test_without_pretraining_the_small_model_is_layers_of_the_folder(folder, tmp_path):
    read = recipe(folder, SMALL + FROM + SHRUNK)
    made = ["pretrain-flagship", "pretrain-small", "small-bf16", "flagship-bf16", "report"]
    assert names(read) == made
    assert read.model_config_of("small").layers == 2
    assert set(run(read, tmp_path / "run", quiet=True).made) == set(made)
    stages = tmp_path / "run" / "stages"
    large, small = (load_folder(stages / f"pretrain-{name}") for name in ("flagship", "small"))
    assert small.config == large.config.model_copy(update={"layers": 2})
    for ours, theirs in zip(small.model.layers, (large.model.layers[0], large.model.layers[3]), strict=True):
        for (name, value), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(value, expected), name
    assert (tmp_path / "run" / "models" / "small" / "tokenizer.json").is_file()
    assert run(read, tmp_path / "run", quiet=True).made == []
    other = recipe(folder, SMALL + FROM + SHRUNK.replace("layers = 2", "keep = [1, 2, 3]"))
    assert run(other, tmp_path / "run", quiet=True).made == ["pretrain-small", "small-bf16", "report"]
    assert load_folder(stages / "pretrain-small").config.layers == 3


@pytest.mark.parametrize("flagship", [FROM, NEW_FLAGSHIP], ids=["from a folder", "new"])
def test_with_pretraining_it_is_trained_on_from_the_trained_flagship(folder, tmp_path, flagship):
    small = SHRUNK.replace("} }", '}, distill = { teacher = "flagship", top_k = 8 }, peak_lr = 1e-4 }')
    size = "[tokenizer]\nvocab_size = 300\n" if flagship == NEW_FLAGSHIP else ""
    read = recipe(folder, SMALL + flagship + small + DATA + size + PRETRAIN)
    order = names(read)
    assert order.index("pretrain-flagship") < order.index("shrink-small") < order.index("pretrain-small")
    run(read, tmp_path / "run", quiet=True, until="pretrain-small")
    stages = tmp_path / "run" / "stages"
    large, start, end = (load_folder(stages / n) for n in ("pretrain-flagship", "shrink-small", "pretrain-small"))
    for (name, value), expected in zip(
        start.model.layers[1].named_parameters(), large.model.layers[3].parameters(), strict=True
    ):
        assert torch.equal(value, expected), name
    moved = [float((a - b).detach().norm()) for a, b in zip(start.parameters(), end.parameters(), strict=True)]
    size = sum(float(value.detach().norm()) for value in start.parameters())
    assert 0 < sum(moved) < 0.1 * size
    by_name = {stage.name: stage for stage in stages_of(read)}
    assert by_name["pretrain-small"].inputs["start"] == "shrink-small"
    assert "shrink" not in by_name["pretrain-small"].settings["herd"]["model"]


def test_a_recipe_without_a_shrunk_model_has_the_settings_it_had_before(folder):
    read = recipe(folder, FROM + DATA + PRETRAIN)
    stage = next(stage for stage in stages_of(read) if stage.name == "pretrain-flagship")
    assert "shrink" not in stage.settings["herd"]["model"]
    assert "shrink" not in read.model_dump()["herd"]["models"]["flagship"]


def test_a_recipe_with_a_shrunk_model_reads_back_and_describes(folder):
    read = recipe(folder, SMALL + NEW_FLAGSHIP + SHRUNK + PRETRAIN)
    assert type(read).model_validate_json(read.model_dump_json()) == read
    assert read.job("small").model.layers == 2
    done = herdlm("describe", folder / "mine.toml")
    assert done.returncode == 0, done.stderr
    with pytest.raises(InputError, match="herd.models.small is shrunk from flagship, which is in no folder yet"):
        read.job("small").new_model(0, "cpu")
    assert read.job("small", folder / "start").shrunk_from is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SHRUNK.replace("flagship", "nobody"), "shrink.from = 'nobody' is no other model"),
        (SHRUNK.replace("flagship", "small"), "shrink.from = 'small' is no other model"),
        (SHRUNK.replace("flagship", "third") + 'third = { from = "start" }\n', "no run makes it"),
        (SHRUNK.replace(", layers = 2", ""), "shrink needs layers or keep"),
        (SHRUNK.replace("layers = 2", "layers = 2, keep = [0]"), "shrink needs layers or keep"),
        (SHRUNK.replace("} }", '}, from = "start-2" }'), "remove from, or shrink"),
        (SHRUNK.replace("} }", "}, peak_lr = 1e-3 }"), "peak_lr is for pre-training"),
    ],
)
def test_shrunk_models_that_cannot_be_are_refused(folder, text, message):
    with pytest.raises(InputError, match=message):
        recipe(folder, SMALL + FROM + text)


@pytest.mark.parametrize(
    ("layers", "message"),
    [("layers = 4", "4 layers cannot be shrunk to 4"), ("keep = [0, 9]", "no layer 9 in a model of 4 layers")],
)
def test_layers_that_the_flagship_lacks_end_the_run_before_its_first_stage(folder, tmp_path, layers, message):
    read = recipe(folder, SMALL + FROM + SHRUNK.replace("layers = 2", layers))
    with pytest.raises(InputError, match=message):
        run(read, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "stages").exists()


def test_keys_for_new_weights_have_no_use_where_all_models_come_from_a_folder(folder):
    with pytest.raises(InputError, match="herd.rope_theta is for models with new weights"):
        recipe(folder, SMALL + "rope_theta = 9.0\n" + FROM + SHRUNK)


def test_a_ladder_has_no_shrunk_model(folder):
    text = '[herd]\nsmall = "small"\nladder = ["small", "a"]\n' + NEW_FLAGSHIP + SHRUNK
    text += "a = { dim = 16, layers = 1, heads = 2, kv_heads = 1, ffn_dim = 32 }\n" + PRETRAIN
    with pytest.raises(InputError, match="small is shrunk: remove either"):
        recipe(folder, text)


def test_models_do_not_teach_what_they_are_made_from(folder):
    text = SMALL + NEW_FLAGSHIP.replace("} ", "}").replace("64 }", '64, distill = { teacher = "small" } }') + SHRUNK
    with pytest.raises(InputError, match="which is made from it"):
        recipe(folder, text + PRETRAIN)
