"""Shrunk models: the logits of layers put together by hand, in transformers too, and what is refused."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from herdlm.base.artifact import read_manifest, verify
from herdlm.base.errors import InputError
from herdlm.base.standalone import input_folder
from herdlm.evaluate.influence import block_influence, text_batches
from herdlm.model.attention import DocumentAttention
from herdlm.model.hf import load_folder, save_folder
from herdlm.model.kept_layers import check_kept, most_influential, spread_layers
from herdlm.model.shrink import shrink
from herdlm.model.transformer import rotation
from herdlm.tokens.chat_format import generation_settings
from tests.conftest import TEXT, small_model
from tests.run.conftest import herdlm

SHAPES = {
    "llama": {},
    "tied": {"tied_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"family": "mistral", "head_dim": 16},
    "qwen2": {"family": "qwen2", "tied_embeddings": True},
}
TOKENS = torch.arange(2 * 24).reshape(2, 24) * 7 % 400


def saved(folder, tokenizer, dtype=torch.float32, **changes):
    """A model of six layers in a folder; its norms and biases are random, too."""
    model = small_model(layers=6, **changes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.copy_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
    folder.mkdir()
    tokenizer.save(folder)
    save_folder(model, folder, dtype=dtype, generation=generation_settings(folder))
    return folder


def inputs():
    documents = torch.zeros_like(TOKENS) + torch.arange(2)[:, None]
    return TOKENS, torch.arange(TOKENS.shape[1]).expand(TOKENS.shape), DocumentAttention(documents)


def by_hand(model, layers):
    """Hidden states after so many of the model's layers, called one after another."""

    tokens, positions, attend = inputs()
    x, angles = model.model.embed_tokens(tokens), rotation(positions, model.frequencies, model.rotation_scale)
    for number in layers:
        x = model.model.layers[number](x, *angles, attend)
    return model.model.norm(x)


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_a_shrunk_model_is_the_kept_layers_and_transformers_agrees(tmp_path, tokenizer, shape):
    large, kept = saved(tmp_path / "large", tokenizer, **SHAPES[shape]), [0, 3, 5]
    counts = shrink(large, tmp_path / "small", kept)
    small, whole = load_folder(tmp_path / "small"), load_folder(large)
    logits, expected = small.logits(small(*inputs())), whole.logits(by_hand(whole, kept))
    assert torch.equal(logits, expected)
    assert not torch.allclose(expected, whole.logits(by_hand(whole, [0, 2, 5])), atol=1e-2)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "small", dtype=torch.float32)
    torch.testing.assert_close(theirs(TOKENS).logits, logits, rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in theirs.parameters()) == counts["parameters"] == small.config.parameters
    assert counts["parameters_before"] == whole.config.parameters


def test_the_folder_keeps_type_and_files_and_tells_where_it_came_from(tmp_path, tokenizer):
    large = saved(tmp_path / "large", tokenizer, torch.bfloat16)
    shrink(large, tmp_path / "small", [1, 4])
    manifest = read_manifest(tmp_path / "small")
    assert manifest.inputs["model"].content == input_folder(large).content
    assert manifest.recipe["keep"] == [1, 4]
    verify(tmp_path / "small", manifest)
    assert load_folder(tmp_path / "small").model.norm.weight.dtype == torch.bfloat16
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "small" / name).read_bytes() == (large / name).read_bytes()
    shrink(large, tmp_path / "wide", [1, 4], dtype="float32")
    assert json.loads((tmp_path / "wide" / "config.json").read_text())["dtype"] == "float32"


def test_a_reward_model_shrinks_with_its_head(tmp_path):
    save_folder(small_model(layers=3, head="score"), tmp_path / "large")
    shrink(tmp_path / "large", tmp_path / "small", [0, 2])
    small, large = load_folder(tmp_path / "small"), load_folder(tmp_path / "large")
    assert torch.equal(small.score.weight, large.score.weight)
    assert torch.equal(small.scores(small(*inputs())), large.scores(by_hand(large, [0, 2])))


@given(st.integers(2, 130).flatmap(lambda layers: st.tuples(st.just(layers), st.integers(1, layers - 1))))
def test_layers_are_spread_evenly_with_both_ends(case):
    layers, count = case
    kept = spread_layers(layers, count)
    assert len(kept) == count
    assert check_kept(layers, kept) == kept
    assert kept[0] == 0
    if count > 1:
        assert kept[-1] == layers - 1
        gaps = [later - earlier for earlier, later in zip(kept, kept[1:], strict=False)]
        assert max(gaps) - min(gaps) <= 1


def test_the_most_influential_layers_stay_in_order():
    assert most_influential([0.9, 0.1, 0.3, 0.1, 0.5], 3) == (0, 2, 4)
    assert most_influential([0.9, 0.1, 0.3, 0.1, 0.5], 4) == (0, 1, 2, 4)


@torch.no_grad()
def test_influence_is_one_less_the_cosine_of_what_goes_in_and_out(tmp_path, tokenizer):
    path = tmp_path / "text.txt"
    path.write_text(TEXT * 3)
    model = small_model(layers=3, max_seq_len=48)
    batches = text_batches(path, tokenizer, longest=48, tokens=110)
    expected, tokens = torch.zeros(3, dtype=torch.float64), 0
    for batch in batches:
        attend, here = DocumentAttention(batch.documents), batch.weights > 0

        x, angles = model.model.embed_tokens(batch.tokens), rotation(batch.positions, model.frequencies)
        for number, layer in enumerate(model.model.layers):
            y = layer(x, *angles, attend)
            cosine = (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))
            expected[number] += cosine[here].double().sum()
            x = y
        tokens += int(here.sum())
    assert tokens == 110
    torch.testing.assert_close(
        torch.tensor(block_influence(model, batches), dtype=torch.float64), 1 - expected / tokens, rtol=1e-5, atol=1e-6
    )
    assert not model.model.layers[0]._forward_hooks


@pytest.mark.parametrize(
    ("keep", "problem"),
    [
        ([], r"\[\] do not rise"),
        ([0, 0, 3], r"\[0, 0, 3\] do not rise"),
        ([3, 1], "do not rise"),
        ([0, 6], "no layer 6 in a model of 6 layers"),
        ([-1, 2], "no layer -1"),
        (list(range(6)), "6 layers cannot be shrunk to 6"),
    ],
)
def test_layers_that_cannot_be_kept_are_refused_and_nothing_is_left(tmp_path, tokenizer, keep, problem):
    large = saved(tmp_path / "large", tokenizer)
    with pytest.raises(InputError, match=problem):
        shrink(large, tmp_path / "small", keep)
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


def test_the_command_spreads_names_or_measures_layers(tmp_path, tokenizer):
    large, text = saved(tmp_path / "large", tokenizer), tmp_path / "text.txt"
    text.write_text(TEXT)
    done = herdlm("shrink", large, "--layers", 3, "--out", tmp_path / "spread")
    assert done.returncode == 0, done.stderr
    assert "Layers 0, 3, 5 of 6" in done.stdout
    done = herdlm("shrink", large, "--keep", "1,2", "--out", tmp_path / "named", "--json")
    assert json.loads(done.stdout)["layers"] == [1, 2]
    done = herdlm("shrink", large, "--layers", 2, "--data", text, "--out", tmp_path / "measured", "--json")
    told = json.loads(done.stdout)
    assert tuple(told["layers"]) == most_influential(told["influence"], 2)
    assert read_manifest(tmp_path / "measured").counts["influence"] == told["influence"]
    for words, problem in (
        (("--layers", 9), "cannot be shrunk to 9"),
        ((), "the layers to keep are not named"),
        (("--layers", 2, "--keep", "0,1"), "the layers to keep are not named"),
        (("--keep", "0,one"), "no list of numbers"),
        (("--keep", "0,1", "--data", text), "--data chooses layers"),
        (("--layers", 2, "--tokens", 9), "--tokens is there, but no text"),
    ):
        done = herdlm("shrink", large, *words, "--out", tmp_path / "refused")
        assert done.returncode == 2
        assert problem in done.stderr
