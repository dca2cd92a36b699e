"""Model folders that are damaged or made to harm: one error that names the file, nothing loaded, nothing endless."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from herdlm.base.artifact import MANIFEST
from herdlm.base.errors import DamagedError, InputError
from herdlm.model.hf import import_hf, load_folder, read_config, save_folder
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.tokenizer import Tokenizer
from tests.conftest import TEXT, small_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("whole") / "model"
    save_folder(small_model(), folder, generation={"eos_token_id": 5})
    tokenizer.save(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


CUTS = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}


def change(path, **keys):
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize(
    "keys",
    [
        {"num_hidden_layers": 10**18},
        {"num_hidden_layers": 100_000},
        {"vocab_size": 10**18},
        {"vocab_size": 10**40},
        {"intermediate_size": 10**18},
        {"hidden_size": 2**62},
        {"head_dim": 2**40},
        {"max_position_embeddings": 2**62},
        {"rope_theta": 1e300, "rope_parameters": None},
        {"rms_norm_eps": 1e9},
    ],
)
def test_shapes_beyond_any_model(folder, keys):
    change(folder / "config.json", **keys)
    with pytest.raises(InputError, match="config.json"):
        load_folder(folder)


@pytest.mark.parametrize("text", ["Infinity", "NaN", "1e999", "9" * 5000, "[" * 50_000, '"\\ud800"'])
def test_values_that_no_number_has(folder, text):
    path = folder / "config.json"
    path.write_text(path.read_text().replace("1e-05", text))
    with pytest.raises(DamagedError, match=r"config.json is not valid JSON"):
        read_config(folder)


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "null", '{"eos_token_id": ' + "9" * 5000 + "}"])
def test_settings_beyond_the_bounds(folder, name, text):
    (folder / name).write_text(text)
    with pytest.raises(DamagedError, match=name):
        ChatFormat.load(folder)


def test_an_index_with_half_a_character(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.embed_tokens.weight": "model-\ud800.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DamagedError, match="index.json"):
        load_folder(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(folder, value):
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(DamagedError, match=r"up_proj.weight holds numbers that are not finite"):
        load_folder(folder)


def test_large_weights_are_finite(folder):
    path = folder / "model.safetensors"
    weights = {name: value.half() for name, value in load_file(path).items()}
    weights["model.norm.weight"][:] = 60_000.0  # their sum is no number of float16
    save_file(weights, path, metadata={"format": "pt"})
    assert load_folder(folder).model.norm.weight.max() == 60_000


def test_an_artifact_whose_weights_or_settings_changed(folder, tmp_path):
    made = tmp_path / "made"
    import_hf(folder, made)
    expected = load_folder(made).state_dict()
    for name, at in (("model.safetensors", -1000), ("config.json", -30), ("tokenizer.json", 40)):
        content = (made / name).read_bytes()
        damaged = bytearray(content)
        damaged[at] ^= 1
        (made / name).write_bytes(damaged)
        with pytest.raises(DamagedError, match="is damaged: its content is not what its manifest says"):
            load_folder(made)
            Tokenizer.load(made)
        (made / name).write_bytes(content)
    changed = (made / MANIFEST).read_text().replace('"dtype": "float32"', '"dtype": "float64"')
    assert changed != (made / MANIFEST).read_text()
    shutil.copytree(made, tmp_path / "sealed")
    (tmp_path / "sealed" / MANIFEST).write_text(changed)
    with pytest.raises(DamagedError, match="its seal does not fit"):
        load_folder(tmp_path / "sealed")
    assert all(torch.equal(expected[name], value) for name, value in load_folder(made).state_dict().items())


def test_verifying_can_be_turned_off(folder, tmp_path, monkeypatch):
    made = tmp_path / "made"
    import_hf(folder, made)
    path = made / "model.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1000] ^= 1
    path.write_bytes(damaged)
    monkeypatch.setenv("HERDLM_VERIFY", "off")
    load_folder(made)


def test_links_out_of_an_imported_folder(folder, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text('{"password": "x"}')
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").symlink_to(secret)
    with pytest.raises(InputError, match="is a link to"):
        import_hf(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").symlink_to("tokenizer_config.json")  # inside
    import_hf(folder, tmp_path / "out")


def test_the_cache_of_other_tools_may_link_to_its_blobs(folder, tmp_path):
    home = tmp_path / "cache"
    (home / "blobs").mkdir(parents=True)
    snapshot = home / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, home / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    import_hf(snapshot, tmp_path / "out")


@pytest.mark.parametrize(
    ("change_it", "message"),
    [
        (lambda d: d.update(truncation=CUTS), "truncation cuts every text"),
        (lambda d: d["model"].update(dropout=0.5), "encodes a text by chance"),
        (lambda d: d["model"].update(continuing_subword_prefix="x"), "is not a valid tokenizer"),
        (lambda d: d.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated",
                                           "invert": False}), "retry-limit"),
        (lambda d: d.update(added_tokens=[1]), "added_tokens is not a list"),
        (lambda d: d.update(added_tokens=[{"id": "x", "content": 3}]), "added_tokens is not a list"),
        (lambda d: d.pop("model"), "is not a valid tokenizer"),
    ],
)  # fmt: skip
def test_tokenizers_that_cut_change_or_end_the_process(folder, change_it, message):
    path = folder / "tokenizer.json"
    definition = json.loads(path.read_text())
    change_it(definition)
    path.write_text(json.dumps(definition))
    with pytest.raises(InputError, match=message):
        Tokenizer.load(folder)


def test_a_whole_folder_is_taken(folder):
    read = Tokenizer.load(folder)
    assert read.decode(read.encode(TEXT)) == TEXT
