"""Hugging Face folders against transformers, both directions, and every way a folder can be wrong."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from herdlm.base.artifact import read_manifest, verify
from herdlm.base.errors import DamagedError, HerdError, InputError
from herdlm.model import hf
from herdlm.model.attention import DocumentAttention
from herdlm.model.config import ModelConfig, RopeScaling
from herdlm.model.hf_config import config_from_hf, config_to_hf
from herdlm.model.transformer import Transformer, build, initialize

STRETCHED = RopeScaling(factor=8, low_freq_factor=1, high_freq_factor=4, original_max_position_embeddings=32)
BASE = {"vocab_size": 151, "dim": 48, "layers": 3, "heads": 6, "kv_heads": 2, "ffn_dim": 80, "max_seq_len": 256}
SHAPES = {
    "multi-head": ModelConfig(**BASE | {"kv_heads": 6}),
    "grouped, tied": ModelConfig(**BASE, tied_embeddings=True),
    "one key head, own head size": ModelConfig(**BASE | {"kv_heads": 1, "head_dim": 12}, rope_theta=1000.0),
    "grouped, tied, own head size, stretched": ModelConfig(
        **BASE | {"head_dim": 16}, tied_embeddings=True, rope_scaling=STRETCHED, norm_eps=1e-6
    ),
    "stretched": ModelConfig(**BASE, rope_scaling=STRETCHED),
}
OTHERS = (
    ModelConfig(**BASE, head="score"),
    ModelConfig(**BASE, attention_bias=True, rope_scaling=RopeScaling(rope_type="linear", factor=2)),
    ModelConfig(**BASE, mlp_bias=True, rope_scaling=RopeScaling(rope_type="dynamic", factor=2)),
    ModelConfig(**BASE, family="mistral", rope_scaling=RopeScaling(rope_type="yarn", mscale=1.0, truncate=False)),
    ModelConfig(**BASE, family="qwen2", head="score"),
)
LENGTH = 96  # three times the original context of the stretched shapes


def random_model(config: ModelConfig, seed: int = 5) -> Transformer:
    """Weights large enough that logits differ by whole units and attention is far from uniform."""
    model = build(config)
    initialize(model, seed, std=0.3)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.copy_(1 + 0.2 * torch.randn(parameter.shape, generator=generator))
        if config.head == "score":
            model.score.weight.copy_(torch.randn(model.score.weight.shape, generator=generator))
    return model


@torch.no_grad()
def states(model: Transformer, tokens: Tensor) -> Tensor:
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    return model(tokens, positions, DocumentAttention(torch.zeros_like(tokens)))


def some_tokens(rows: int, length: int) -> Tensor:
    return torch.randint(0, 151, (rows, length), generator=torch.Generator().manual_seed(9))


def assert_same_model(model: Transformer, theirs: Any) -> None:
    tokens = some_tokens(2, LENGTH)
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert expected.std() > 0.3
        torch.testing.assert_close(model.logits(states(model, tokens)), expected, atol=1e-4, rtol=0)
        prompt = tokens[:, :30]
        answer = theirs.generate(
            prompt, max_new_tokens=40, do_sample=False, eos_token_id=None, pad_token_id=0, use_cache=True
        )
        ours = prompt
        for _ in range(40):
            ours = torch.cat([ours, model.logits(states(model, ours)[:, -1:]).argmax(-1)], dim=1)
    assert ours.tolist() == answer.tolist()
    assert len(set(ours[:, 30:].flatten().tolist())) > 3  # not one token over and over


@pytest.mark.parametrize("name", SHAPES)
def test_what_we_save_is_what_transformers_loads(name: str, tmp_path: Path) -> None:
    model = random_model(SHAPES[name])
    hf.save_folder(model, tmp_path / "m")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    assert isinstance(theirs, LlamaForCausalLM)
    assert_same_model(model, theirs)


@pytest.mark.parametrize("name", SHAPES)
def test_what_transformers_saves_is_what_we_load(name: str, tmp_path: Path) -> None:
    config = SHAPES[name]
    rope: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_type": "default"}
    if config.rope_scaling:
        rope |= config.rope_scaling.table()
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.dim,
            intermediate_size=config.ffn_dim,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_size,
            max_position_embeddings=config.max_seq_len,
            rms_norm_eps=config.norm_eps,
            tie_word_embeddings=config.tied_embeddings,
            rope_parameters=rope,
        )
    ).eval()
    theirs.load_state_dict(random_model(config, seed=6).state_dict())
    theirs.save_pretrained(tmp_path / "theirs")
    model = hf.load_folder(tmp_path / "theirs")
    assert model.config == config
    assert_same_model(model, theirs)


def test_reward_models_both_ways(tmp_path: Path) -> None:
    config = ModelConfig(**BASE, head="score")
    model = random_model(config)
    tokens = some_tokens(1, 30)
    hf.save_folder(model, tmp_path / "ours", generation={"pad_token_id": 0})
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert isinstance(theirs, LlamaForSequenceClassification) and theirs.config.num_labels == 1
    with torch.no_grad():
        score = model.scores(states(model, tokens))[:, -1:]
        assert score.abs() > 0.1
        torch.testing.assert_close(theirs(tokens).logits, score, atol=1e-4, rtol=0)
    theirs.save_pretrained(tmp_path / "theirs")
    again = hf.load_folder(tmp_path / "theirs")
    assert again.config == config
    assert torch.equal(again.score.weight, model.score.weight)


@pytest.mark.parametrize("config", [*SHAPES.values(), *OTHERS], ids=str)
def test_config_round_trip(config: ModelConfig) -> None:
    assert config_from_hf(json.loads(json.dumps(config_to_hf(config, torch.bfloat16))), "here") == config


def test_config_of_transformers_4() -> None:
    config = config_to_hf(SHAPES["stretched"], torch.bfloat16)
    for key in ("rope_parameters", "dtype", "head_dim"):
        del config[key]
    assert config_from_hf(config, "here") == SHAPES["stretched"]


def test_config_of_transformers_5() -> None:
    config = config_to_hf(SHAPES["stretched"], torch.bfloat16)
    for key in ("rope_theta", "rope_scaling", "torch_dtype"):
        del config[key]
    assert config_from_hf(config, "here") == SHAPES["stretched"]


def test_the_published_8b_config() -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "tie_word_embeddings": False,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
    }
    read = config_from_hf(config, "here")
    assert read.parameters == 8_030_261_248 and read.rope_scaling == RopeScaling() and read.head_size == 128


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_transformers_values_of_absent_keys(family: Any) -> None:
    config = config_to_hf(ModelConfig(**BASE | {"heads": 32, "dim": 128}, family=family), torch.bfloat16)
    for key in (
        "num_key_value_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "tie_word_embeddings",
        "rope_theta",
        "rope_parameters",
        "rope_scaling",
        "head_dim",
    ):
        del config[key]
    theirs = AutoConfig.for_model(**config)
    read = config_from_hf(config, "here")
    assert (read.max_seq_len, read.norm_eps, read.tied_embeddings, read.rope_theta, read.kv_heads) == (
        theirs.max_position_embeddings,
        theirs.rms_norm_eps,
        theirs.tie_word_embeddings,
        theirs.rope_parameters["rope_theta"],
        theirs.num_key_value_heads,
    )


def test_a_mistral_folder_without_the_key_has_the_window_of_transformers() -> None:
    config = config_to_hf(ModelConfig(**BASE | {"max_seq_len": 4097}, family="mistral"), torch.bfloat16)
    del config["sliding_window"]
    assert AutoConfig.for_model(**config).sliding_window == 4096
    with pytest.raises(InputError, match="sliding_window = 4096"):
        config_from_hf(config, "here")
    assert config_from_hf(config | {"max_position_embeddings": 4096}, "here").max_seq_len == 4096


MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM"),
        ({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}, "which has norms of queries and keys"),
        ({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}, "which has a mixture of experts"),
        ({"architectures": ["LlamaModel"]}, "LlamaModel"),
        ({"architectures": None}, "architectures None"),
        ({"model_type": "granite"}, "granite"),
        ({"attention_bias": "some"}, "attention_bias = 'some'"),
        (MISTRAL | {"attention_bias": True}, "attention_bias is a key of the llama family, not of mistral"),
        (QWEN2 | {"mlp_bias": True}, "mlp_bias is a key of the llama family, not of qwen2"),
        ({"use_qk_norm": True}, "use_qk_norm = True"),
        ({"num_local_experts": 8}, "num_local_experts = 8"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"sliding_window": 255}, "sliding_window = 255 is less than max_position_embeddings = 256"),
        (MISTRAL | {"sliding_window": 255}, "sliding_window = 255"),
        (QWEN2 | {"use_sliding_window": True, "sliding_window": 255, "max_window_layers": 2}, "sliding_window = 255"),
        (QWEN2 | {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        (QWEN2 | {"use_sliding_window": True, "layer_types": ["x"]}, "layer_types"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_type 'longrope'"),
        ({"rope_scaling": {"type": "su", "factor": 2.0}, "rope_parameters": None}, "rope_type 'su'"),
        ({"rope_scaling": {"type": "linear"}, "rope_parameters": None}, "rope_scaling.factor is missing"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}, "rope_parameters": None}, "rope_scaling.factor = 0.5"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0, "alpha": 9}}, "rope_scaling.alpha = 9"),
        ({"rope_scaling": {"rope_type": "default", "mrope_section": [2, 1]}}, "mrope_section = [2, 1]"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "rope_parameters.full_attention"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_scaling and rope_parameters disagree"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.low_freq_factor is missing"),
        ({"rope_scaling": {"rope_type": "default", "rope_theta": 7.0}}, "disagree"),
        ({"rope_theta": 7.0}, "disagree"),
        ({"rope_scaling": [8]}, "rope_scaling is not a table"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized (gptq)"),
        ({"quantization_config": "fp8"}, "quantized"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "2 labels"),
        ({"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "a", "1": "b", "2": "c"}}, "3 labels"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_attention_heads": 5}, "dim 48 is not a multiple of heads 5"),
        ({"num_hidden_layers": 0}, "layers = 0"),
    ],
)
def test_what_cannot_be_represented_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    config = config_to_hf(SHAPES["multi-head"], torch.float32) | changes
    with pytest.raises(InputError) as caught:
        config_from_hf(config, "there/config.json")
    assert "there/config.json" in caught.value.what and said in caught.value.what, str(caught.value)


@pytest.mark.parametrize("wrong", ["text", -3, 2.5, [1], {"a": 1}, True])
@pytest.mark.parametrize(
    "key", [*sorted(config_to_hf(SHAPES["stretched"], torch.float32)), "quantization_config", "layer_types", "id2label"]
)
def test_no_value_of_any_key_escapes_as_another_error(key: str, wrong: Any) -> None:
    config = config_to_hf(SHAPES["stretched"], torch.float32) | {key: wrong}
    try:
        config_from_hf(config, "here")
    except InputError as error:
        assert "\n" not in str(error)


def test_same_model_same_bytes(tmp_path: Path) -> None:
    model = random_model(SHAPES["stretched"])
    for name in ("a", "b"):
        hf.save_folder(model, tmp_path / name, dtype=torch.bfloat16, generation={"eos_token_id": [1, 2]})
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == ["config.json", "generation_config.json", "model.safetensors"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "config.json").read_text())["eos_token_id"] == [1, 2]


@pytest.mark.parametrize("tied", [True, False])
def test_shards(tmp_path: Path, tied: bool) -> None:
    model = random_model(ModelConfig(**BASE, tied_embeddings=tied))
    hf.save_folder(model, tmp_path / "m", max_shard_bytes=40_000)
    shards = sorted((tmp_path / "m").glob("*.safetensors"))
    assert len(shards) > 3 and shards[0].name == f"model-00001-of-{len(shards):05}.safetensors"
    assert not list((tmp_path / "m").glob(".*"))
    for shard in shards:
        tensors = load_file(shard)
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 40_000
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == model.config.parameters * 4
    again = hf.load_folder(tmp_path / "m")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    assert torch.equal(theirs.state_dict()["model.norm.weight"], model.model.norm.weight)


def test_saved_files_have_the_permissions_of_any_other(tmp_path: Path) -> None:
    hf.save_folder(random_model(SHAPES["multi-head"]), tmp_path / "m")
    (tmp_path / "other").touch()
    assert (tmp_path / "m" / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_loaded_types(tmp_path: Path) -> None:
    model = random_model(SHAPES["grouped, tied"])
    hf.save_folder(model, tmp_path / "m", dtype=torch.bfloat16)
    loaded = hf.load_folder(tmp_path / "m")
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16} and loaded.frequencies.dtype == torch.float32
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert {p.dtype for p in hf.load_folder(tmp_path / "m", dtype=torch.float32).parameters()} == {torch.float32}
    path = tmp_path / "m" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = model.model.norm.weight.detach().clone()
    save_file(tensors, path)
    mixed = hf.load_folder(tmp_path / "m")
    assert mixed.model.norm.weight.dtype == torch.float32 and torch.equal(
        mixed.model.norm.weight, model.model.norm.weight
    )


def test_a_folder_is_never_saved_over_another(tmp_path: Path) -> None:
    hf.save_folder(random_model(SHAPES["multi-head"]), tmp_path / "m", max_shard_bytes=40_000)
    with pytest.raises(InputError, match="holds weights already"):
        hf.save_folder(random_model(SHAPES["multi-head"]), tmp_path / "m")


def test_a_full_disk_leaves_no_model(tmp_path: Path) -> None:
    model = random_model(SHAPES["multi-head"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(HerdError, match="cannot be written"):
            hf.save_folder(model, tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "m" / "config.json").exists()
    with pytest.raises(InputError):
        hf.load_folder(tmp_path / "m")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A grouped, untied model."""
    hf.save_folder(random_model(ModelConfig(**BASE)), tmp_path / "m", generation={"bos_token_id": 1, "eos_token_id": 2})
    return tmp_path / "m"


def change_tensors(folder: Path, **changes: Tensor | None) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, value in changes.items():
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    save_file(tensors, path)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_truncated_weights(folder: Path, kept: float) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(DamagedError, match=r"model\.safetensors is truncated or damaged"):
        hf.load_folder(folder)


def test_a_damaged_header_is_noticed_or_harmless(folder: Path) -> None:
    path = folder / "model.safetensors"
    data, good, noticed = path.read_bytes(), hf.load_folder(folder).state_dict(), 0
    for at in range(0, 1200, 13):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x15]) + data[at + 1 :])
        try:
            loaded = hf.load_folder(folder).state_dict()
        except InputError:
            noticed += 1
        else:
            assert all(torch.equal(value, good[name]) for name, value in loaded.items()), at
    assert noticed > 80


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.norm.weight": None}, "lacks the tensor model.norm.weight"),
        ({"lm_head.weight": None}, "lacks the tensor lm_head.weight"),
        ({"model.norm.weight": torch.ones(47)}, r"shape \[47\], config.json says \[48\]"),
        (
            {"model.layers.3.input_layernorm.weight": torch.ones(48)},
            "model.layers.3.input_layernorm.weight has no place",
        ),
        ({"model.layers.0.self_attn.q_proj.bias": torch.ones(48)}, "q_proj.bias has no place"),
        ({"model.norm.weight": torch.ones(48).to(torch.float8_e4m3fn)}, "stored as torch.float8_e4m3fn"),
    ],
)
def test_tensors_that_do_not_fit(folder: Path, changes: dict[str, Tensor | None], said: str) -> None:
    change_tensors(folder, **changes)
    with pytest.raises(DamagedError, match=said):
        hf.load_folder(folder)


def test_integers_are_no_weights(folder: Path) -> None:
    change_tensors(folder, **{"model.norm.weight": torch.ones(48, dtype=torch.int64)})
    with pytest.raises(InputError, match="is of type I64"):
        hf.load_folder(folder)


def test_stored_rope_frequencies_are_passed_over(folder: Path) -> None:
    change_tensors(folder, **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert hf.load_folder(folder).config == ModelConfig(**BASE)


def test_a_stored_tied_head_must_be_the_embedding(tmp_path: Path) -> None:
    model = random_model(SHAPES["grouped, tied"])
    hf.save_folder(model, tmp_path / "m")
    assert "lm_head.weight" not in load_file(tmp_path / "m" / "model.safetensors")
    change_tensors(tmp_path / "m", **{"lm_head.weight": model.lm_head.weight.detach().clone()})
    assert torch.equal(hf.load_folder(tmp_path / "m").lm_head.weight, model.lm_head.weight)
    change_tensors(tmp_path / "m", **{"lm_head.weight": model.lm_head.weight.detach() + 1})
    with pytest.raises(InputError, match="differs from the embedding"):
        hf.load_folder(tmp_path / "m")


def test_folders_that_are_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere/config\.json does not exist"):
        hf.load_folder(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"neither model\.safetensors nor"):
        hf.load_folder(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=r"pytorch_model\.bin, which is a pickle and never unpickled"):
        hf.load_folder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(DamagedError, match=r"config\.json is not valid JSON"):
        hf.load_folder(folder)
    (folder / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(DamagedError, match=r"config\.json is not valid JSON"):
        hf.load_folder(folder)


def test_wrong_shards(tmp_path: Path) -> None:
    good = tmp_path / "good"
    hf.save_folder(random_model(ModelConfig(**BASE)), good, max_shard_bytes=60_000)
    shard = sorted(good.glob("*.safetensors"))[1].name

    def broken(name: str) -> Path:
        return Path(shutil.copytree(good, tmp_path / name))

    def index(folder: Path, change: Any) -> None:
        path = folder / "model.safetensors.index.json"
        content = json.loads(path.read_text())
        change(content["weight_map"])
        path.write_text(json.dumps(content))

    lost = broken("lost")
    (lost / shard).unlink()
    with pytest.raises(DamagedError, match=f"{shard} is missing"):
        hf.load_folder(lost)
    short = broken("short")
    (short / shard).write_bytes((good / shard).read_bytes()[:-5])
    with pytest.raises(DamagedError, match=f"{shard} is truncated"):
        hf.load_folder(short)
    swapped = broken("swapped")
    index(swapped, lambda places: places.update({"model.norm.weight": shard}))
    with pytest.raises(DamagedError, match=r"model\.norm\.weight, which"):
        hf.load_folder(swapped)
    promised = broken("promised")
    index(promised, lambda places: places.update({"model.extra": shard}))
    with pytest.raises(DamagedError, match=r"does not hold model\.extra"):
        hf.load_folder(promised)
    outside = broken("outside")
    index(outside, lambda places: places.update({"model.norm.weight": "../good/" + shard}))
    with pytest.raises(DamagedError, match="not a file of its folder"):
        hf.load_folder(outside)
    both = broken("both")
    shutil.copy(both / shard, both / "model.safetensors")
    with pytest.raises(InputError, match="holds both"):
        hf.load_folder(both)


TOKENIZER = {
    "tokenizer.json": '{"version": "1.0"}',
    "tokenizer_config.json": "{}",
    "special_tokens_map.json": "{}",
    "chat_template.jinja": "{{ messages }}",
}


def test_import_makes_an_artifact_that_loses_nothing(folder: Path, tmp_path: Path) -> None:
    for name, text in TOKENIZER.items():
        (folder / name).write_text(text)
    (folder / "README.md").write_text("left behind")
    out = tmp_path / "deep" / "imported"
    counts = hf.import_hf(folder, out)
    assert counts == {
        "parameters": ModelConfig(**BASE).parameters,
        "bytes": ModelConfig(**BASE).parameters * 4,
        "dtype": "float32",
    }
    names = {p.name for p in out.iterdir()}
    assert names == {"config.json", "model.safetensors", "generation_config.json", "manifest.json", *TOKENIZER}
    manifest = read_manifest(out)
    assert manifest is not None and manifest.kind == "model" and manifest.inputs["folder"].path == str(folder)
    verify(out, manifest)
    assert (out / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (out / "tokenizer.json").read_text() == TOKENIZER["tokenizer.json"]
    assert not list(out.parent.glob(".*"))


def test_export_is_what_transformers_reads(folder: Path, tmp_path: Path) -> None:
    counts = hf.export_hf(folder, tmp_path / "out")
    assert counts["dtype"] == "bfloat16"
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.dtype == torch.bfloat16 and theirs.generation_config.eos_token_id == 2
    original = hf.load_folder(folder).state_dict()
    assert all(torch.equal(value, original[name].to(torch.bfloat16)) for name, value in theirs.state_dict().items())
    assert hf.export_hf(folder, tmp_path / "wide", "float32")["dtype"] == "float32"
    with pytest.raises(InputError, match="'int8' is unknown"):
        hf.export_hf(folder, tmp_path / "narrow", "int8")


def test_half_precision_is_imported_as_float32(folder: Path, tmp_path: Path) -> None:
    tensors = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    assert hf.import_hf(folder, tmp_path / "out")["dtype"] == "float32"
    assert all(torch.equal(v, tensors[n].float()) for n, v in hf.load_folder(tmp_path / "out").state_dict().items())


def test_token_ids_survive_without_generation_config(folder: Path, tmp_path: Path) -> None:
    (folder / "generation_config.json").unlink()
    hf.import_hf(folder, tmp_path / "out")
    for name in ("config.json", "generation_config.json"):
        written = json.loads((tmp_path / "out" / name).read_text())
        assert (written["bos_token_id"], written["eos_token_id"]) == (1, 2)


@pytest.mark.parametrize("rewrite", [hf.import_hf, hf.export_hf])
def test_import_and_export_refuse_to_overwrite_and_leave_nothing(rewrite: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="there exists already"):
        rewrite(folder, tmp_path / "there")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(DamagedError, match=r"tokenizer\.json is not valid JSON"):
        rewrite(folder, tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "there"]
