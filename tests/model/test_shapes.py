"""Every shape that a Transformer represents, against the model that transformers makes of the same folder."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from herdlm.base.errors import InputError
from herdlm.generate import Engine, SamplingParams
from herdlm.model import hf
from herdlm.model.attention import DocumentAttention
from herdlm.model.hf_config import config_from_hf
from herdlm.model.rope import inverse_frequencies, rotation_scale
from herdlm.model.transformer import Transformer

COMMON: dict[str, Any] = {
    "vocab_size": 151,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": None,
    "eos_token_id": None,
}


def rope(kind: str, **keys: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1000.0, **keys}}


YARN = rope("yarn", factor=4.0, original_max_position_embeddings=32)
BIASES = {"attention_bias": True, "mlp_bias": True}
# Name: family and keys of its configuration.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "attention biases": ("Llama", {"attention_bias": True}),
    "feed-forward biases, tied": ("Llama", {"mlp_bias": True, "tie_word_embeddings": True}),
    "linear": ("Llama", rope("linear", factor=4.0)),
    "dynamic": ("Llama", rope("dynamic", factor=4.0)),
    "yarn": ("Llama", YARN),
    "yarn, its own head size": ("Llama", {**rope("yarn", factor=4.0), "head_dim": 32}),
    "yarn, attention factor": (
        "Llama",
        rope(
            "yarn", factor=8.0, original_max_position_embeddings=16, attention_factor=0.7, beta_fast=6.0, beta_slow=2.0
        ),
    ),
    "yarn, mscale": (
        "Llama",
        rope("yarn", factor=4.0, original_max_position_embeddings=32, mscale=1.0, mscale_all_dim=0.5, truncate=False),
    ),
    "llama3, all biases": (
        "Llama",
        BIASES
        | rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
    ),
    "yarn, all biases, one key head": ("Llama", BIASES | YARN | {"num_key_value_heads": 1}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral, a window over everything": ("Mistral", {"sliding_window": 128, **rope("linear", factor=2.0)}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2, yarn, a window of no layer": (
        "Qwen2",
        YARN | {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2},
    ),
}
LENGTH = 100  # far beyond the original context of every scaling


def made(family: str, keys: dict[str, Any], head: str = "ForCausalLM") -> Any:
    """A model of transformers with random weights and biases, such that logits differ by whole units."""
    config = getattr(transformers, f"{family}Config")(**COMMON | keys)
    model = getattr(transformers, f"{family}{head}")(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread, middle = (0.2, 1.0 if "norm" in name else 0.0)
            parameter.copy_(middle + spread * torch.randn(parameter.shape, generator=generator))
    return model


def some_tokens(rows: int = 2, length: int = LENGTH) -> Tensor:
    return torch.randint(0, 151, (rows, length), generator=torch.Generator().manual_seed(9))


def states(model: Transformer, tokens: Tensor) -> Tensor:
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    hidden: Tensor = model(tokens, positions, DocumentAttention(torch.zeros_like(tokens)))
    return hidden


@pytest.mark.parametrize("name", SHAPES)
def test_numbers_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    family, keys = SHAPES[name]
    theirs, tokens = made(family, keys), some_tokens()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = hf.load_folder(tmp_path / "theirs")
    assert ours.config.family == family.lower()
    assert ours.config.parameters == sum(parameter.numel() for parameter in theirs.parameters())
    assert sum("bias" in n for n, _ in ours.named_parameters()) == sum(
        "bias" in n for n, _ in theirs.named_parameters()
    )

    results = []
    for logits, model in ((theirs(tokens).logits, theirs), (ours.logits(states(ours, tokens)), ours)):
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        results.append((logits.detach(), {n: p.grad for n, p in model.named_parameters()}))
    (expected, gradients), (logits, found) = results
    assert expected.std() > 0.3
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    for parameter, gradient in gradients.items():
        assert gradient.abs().max() > 0, parameter
        torch.testing.assert_close(found[parameter], gradient, atol=1e-5, rtol=1e-3)

    hf.save_folder(ours, tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert type(again) is type(theirs)
    with torch.no_grad():
        torch.testing.assert_close(again(tokens).logits, expected, atol=1e-6, rtol=0)
    assert hf.load_folder(tmp_path / "ours").config == ours.config


@pytest.mark.parametrize("name", SHAPES)
def test_greedy_text_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    family, keys = SHAPES[name]
    theirs = made(family, keys)
    theirs.save_pretrained(tmp_path / "m")
    prompts = some_tokens(3, 50)
    options: dict[str, Any] = {"max_new_tokens": LENGTH - 50, "do_sample": False, "eos_token_id": None}
    expected = theirs.generate(prompts, attention_mask=torch.ones_like(prompts), pad_token_id=0, **options)
    engine = Engine(hf.load_folder(tmp_path / "m"), None)
    found = engine.generate(prompts.tolist(), SamplingParams(max_tokens=LENGTH - 50, temperature=0))
    assert [each[0].tokens for each in found] == expected[:, 50:].tolist()
    assert len({token for each in found for token in each[0].tokens}) > 5


@pytest.mark.parametrize(
    ("family", "keys"), [("Llama", BIASES | YARN), ("Mistral", {"sliding_window": None}), ("Qwen2", {})], ids=str
)
def test_scores_are_those_of_transformers_both_ways(family: str, keys: dict[str, Any], tmp_path: Path) -> None:
    theirs = made(family, {**keys, "num_labels": 1, "pad_token_id": 0}, "ForSequenceClassification")
    tokens = some_tokens().clamp(min=1)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = hf.load_folder(tmp_path / "theirs")
    assert ours.config.parameters == sum(parameter.numel() for parameter in theirs.parameters())
    hf.save_folder(ours, tmp_path / "ours", generation={"pad_token_id": 0})
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(tokens).logits
        torch.testing.assert_close(ours.scores(states(ours, tokens))[:, -1:], expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(again(tokens).logits, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("stored", ["lm_head.weight", "model.embed_tokens.weight", "both"])
def test_a_tied_pair_is_stored_under_either_name(stored: str, tmp_path: Path) -> None:
    theirs = made("Qwen2", {"tie_word_embeddings": True})
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    weight = tensors.pop("model.embed_tokens.weight")
    names = ["lm_head.weight", "model.embed_tokens.weight"] if stored == "both" else [stored]
    save_file(tensors | {name: weight.clone() for name in names}, path, metadata={"format": "pt"})
    ours, tokens = hf.load_folder(tmp_path), some_tokens()
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(states(ours, tokens)), theirs(tokens).logits, atol=1e-4, rtol=0)
    hf.import_hf(tmp_path, tmp_path / "imported")
    assert torch.equal(hf.load_folder(tmp_path / "imported").lm_head.weight, weight)
    assert "lm_head.weight" not in load_file(tmp_path / "imported" / "model.safetensors")


def test_import_and_export_keep_the_architecture(tmp_path: Path) -> None:
    for family, keys in [("Mistral", {"sliding_window": None}), ("Qwen2", {"use_sliding_window": False})]:
        folder = tmp_path / family
        made(family, keys).save_pretrained(folder)
        hf.import_hf(folder, tmp_path / f"{family}-in")
        hf.export_hf(tmp_path / f"{family}-in", tmp_path / f"{family}-out", "float32")
        written = json.loads((tmp_path / f"{family}-out" / "config.json").read_text())
        assert (written["architectures"], written["model_type"]) == ([f"{family}ForCausalLM"], family.lower())


@pytest.mark.parametrize(
    "stated",
    [
        {"rope_scaling": {"type": "linear", "factor": 4}},
        {"rope_scaling": {"type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 64}},
        {"rope_scaling": {"type": "yarn", "factor": 4.0, "finetuned": True}},
        {"rope_scaling": YARN["rope_parameters"], "original_max_position_embeddings": 16},
        {"rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}},
        {"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": None, "mscale": 0, "mscale_all_dim": 1.0}},
        {
            "rope_scaling": {
                "type": "yarn",
                "factor": 40.0,
                "original_max_position_embeddings": 8,
                "attention_factor": 1,
            }
        },
        {"rope_scaling": {"type": "yarn", "factor": 1.0, "original_max_position_embeddings": 10**8}},
        {"rope_scaling": {}},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    ],
    ids=str,
)
def test_rates_are_those_of_transformers_however_they_are_stated(stated: dict[str, Any]) -> None:
    keys = COMMON | {"architectures": ["LlamaForCausalLM"], "rope_theta": 1000.0} | stated
    ours = config_from_hf({"model_type": "llama", **copy.deepcopy(keys)}, "here")
    theirs = LlamaRotaryEmbedding(transformers.LlamaConfig(**copy.deepcopy(keys)))
    torch.testing.assert_close(inverse_frequencies(ours), theirs.inv_freq, rtol=1e-6, atol=0)
    assert rotation_scale(ours) == theirs.attention_scaling


def test_texts_end_where_dynamic_scaling_would_begin(tmp_path: Path) -> None:
    made("Llama", rope("dynamic", factor=4.0)).save_pretrained(tmp_path)
    engine = Engine(hf.load_folder(tmp_path), None)
    ((answer,),) = engine.generate(some_tokens(1, 120).tolist(), SamplingParams(max_tokens=50, temperature=0))
    assert len(answer.tokens) == 8
    with pytest.raises(InputError, match="128"):
        engine.generate(some_tokens(1, 129).tolist(), SamplingParams(max_tokens=1))
