"""Averages of models: against the mean written out, streamed, and refused by what differs."""

import json

import pytest
import torch

from herdlm.base.errors import InputError
from herdlm.model.average import average_folders
from herdlm.model.hf import load_folder, save_folder
from tests.conftest import small_model


@pytest.fixture
def folders(tmp_path, tokenizer):
    made = [tmp_path / name for name in "abc"]
    for seed, folder in enumerate(made):
        save_folder(small_model(seed), folder, dtype=torch.bfloat16 if seed == 2 else torch.float32)
        tokenizer.save(folder)
    return made


@pytest.mark.parametrize("weights", [None, [1, 2, 5]])
def test_the_average_is_the_weighted_mean(folders, tmp_path, weights):
    counts = average_folders(folders, tmp_path / "out", weights=weights)
    models = [dict(load_folder(folder, dtype=torch.float32).named_parameters()) for folder in folders]
    shares = torch.tensor(weights or [1, 1, 1], dtype=torch.float64)
    averaged = load_folder(tmp_path / "out")
    for name, value in averaged.named_parameters():
        stacked = torch.stack([model[name].double() for model in models], -1)
        expected = (stacked * shares).sum(-1) / shares.sum()
        torch.testing.assert_close(value, expected.float(), rtol=1e-6, atol=1e-8, msg=name)
    assert counts["models"] == 3
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (folders[0] / "tokenizer.json").read_bytes()


def test_the_type_saved_is_an_option(folders, tmp_path):
    average_folders(folders[:2], tmp_path / "out", dtype="bfloat16")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert next(load_folder(tmp_path / "out").parameters()).dtype == torch.bfloat16


def test_models_that_differ_are_refused_by_what_differs_and_nothing_is_left(folders, tmp_path):
    save_folder(small_model(ffn_dim=48), tmp_path / "other")
    with pytest.raises(InputError, match="ffn_dim 64 and 48"):
        average_folders([folders[0], tmp_path / "other"], tmp_path / "out")
    (folders[1] / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="tokenizer.json differ"):
        average_folders(folders, tmp_path / "out")
    for given, weights, named in (
        (folders[:1], None, "two models or more"),
        ([folders[0]] * 2, [1.0], "1 weights for 2"),
        ([folders[0]] * 2, [0.0, 0.0], "cannot be used"),
        ([folders[0]] * 2, [1.0, float("nan")], "cannot be used"),
    ):
        with pytest.raises(InputError, match=named):
            average_folders(given, tmp_path / "out", weights=weights)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))
