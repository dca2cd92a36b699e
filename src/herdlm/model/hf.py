"""Reads and writes Hugging Face Llama folders without the transformers library.

A folder holds config.json, safetensors weights, and settings of tokenizer and generation. Parameters have the
Transformer's names, so only the configuration is translated. A model that a Transformer cannot represent exactly is
refused, with the reason. config.json states RoPE in the old form (``rope_theta``, ``rope_scaling``) and in the new one
(``rope_parameters``), so that transformers 4 and 5 and vLLM read the same numbers.

config.json is written last: a folder without it is not a model.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from herdlm import __version__
from herdlm.base.artifact import InputEntry, hash_file, hash_json, publish
from herdlm.base.errors import DamagedError, InputError
from herdlm.base.recipe import parse
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Transformer, build
from herdlm.model.weights import FETCH_AGAIN, StoredTensor, open_weights, read_json, write_json, write_weights

ARCHITECTURES = {"lm": "LlamaForCausalLM", "score": "LlamaForSequenceClassification"}
CONFIG = "config.json"
GENERATION = "generation_config.json"
COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", GENERATION)
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
MAX_SHARD_BYTES = 5_000_000_000
EXPORTS = {"bfloat16": torch.bfloat16, "float32": torch.float32}

# Llama's values of optional keys; all other numbers are required.
DEFAULTS = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_theta": 10_000.0}
# Key, the values that a Transformer supports, and the meaning of any other value.
FIXED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("attention_bias", (None, False), "biases in attention"),
    ("mlp_bias", (None, False), "biases in the feed-forward"),
    ("hidden_act", (None, "silu", "swish"), "another activation function"),
    ("sliding_window", (None,), "sliding-window attention"),
    ("partial_rotary_factor", (None, 1, 1.0), "RoPE on a part of the head"),
    ("rope_interleaved", (None, False), "another channel order in RoPE"),
)
SCALING = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def config_to_hf(config: ModelConfig, dtype: torch.dtype, generation: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of config.json for weights of ``dtype``; ``generation`` has the bos, eos and pad token ids."""
    name = str(dtype).removeprefix("torch.")
    scaling = config.rope_scaling and {"rope_type": "llama3", **config.rope_scaling.model_dump()}
    labels = {} if config.head == "lm" else {"id2label": {"0": "score"}, "label2id": {"score": 0}}
    return {
        "architectures": [ARCHITECTURES[config.head]],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.ffn_dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_theta": config.rope_theta, **(scaling or {"rope_type": "default"})},
        "tie_word_embeddings": config.tied_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "hidden_act": "silu",
        "use_cache": True,
        **{key: (generation or {}).get(key) for key in TOKEN_IDS},
        **labels,
        "torch_dtype": name,
        "dtype": name,
    }


def config_from_hf(config: dict[str, Any], where: str) -> ModelConfig:
    """The shape that a config.json describes; ``where``, its path, appears in errors.

    Raises:
        InputError: a key is missing or out of range, or a Transformer cannot represent the model exactly.
    """
    head = _head(config, where)
    quantization = config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise InputError(f"{where}: the weights are quantized ({method})", "Use the folder from which it was quantized")
    for key, known, meaning in FIXED:
        if config.get(key) not in known:
            raise InputError(
                f"{where}: {key} = {config[key]!r} means {meaning}, which no model here has",
                "Use a folder of the plain Llama architecture",
            )
    kinds = config.get("layer_types")
    if kinds is not None and not (isinstance(kinds, list) and all(kind == "full_attention" for kind in kinds)):
        raise InputError(f"{where}: layer_types = {kinds!r}", "Only full_attention can be represented")

    def number(key: str) -> Any:
        value = config.get(key, DEFAULTS.get(key))
        if value is None:
            raise InputError(f"{where}: key {key} is missing", FETCH_AGAIN)
        return value

    dim, heads = number("hidden_size"), number("num_attention_heads")
    head_dim, kv_heads = config.get("head_dim"), config.get("num_key_value_heads")
    implied = isinstance(dim, int) and isinstance(heads, int) and heads > 0 and head_dim == dim // heads
    theta, scaling = _rope(config, where)
    return parse(
        ModelConfig,
        {
            "vocab_size": number("vocab_size"),
            "dim": dim,
            "layers": number("num_hidden_layers"),
            "heads": heads,
            "kv_heads": heads if kv_heads is None else kv_heads,
            "ffn_dim": number("intermediate_size"),
            "head_dim": None if implied else head_dim,
            "max_seq_len": number("max_position_embeddings"),
            "rope_theta": theta,
            "rope_scaling": scaling,
            "norm_eps": number("rms_norm_eps"),
            "tied_embeddings": number("tie_word_embeddings"),
            "head": head,
        },
        where,
    )


def _head(config: dict[str, Any], where: str) -> str:
    names = config.get("architectures")
    heads = {name: head for head, name in ARCHITECTURES.items()}
    if not isinstance(names, list) or len(names) != 1 or names[0] not in heads or config.get("model_type") != "llama":
        raise InputError(
            f"{where}: architectures {names!r} with model_type {config.get('model_type')!r} is not Llama",
            f"Known: {' and '.join(heads)}, model_type 'llama'",
        )
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)
    if heads[names[0]] == "score" and count != 1:
        raise InputError(f"{where}: the classifier has {count} labels", "Only a reward model's single score is known")
    return heads[names[0]]


def _rope(config: dict[str, Any], where: str) -> tuple[Any, dict[str, Any] | None]:
    """RoPE's base and scaling, from the old keys, the new ones, or both if they agree."""
    stated = []
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise InputError(f"{where}: {key} is not a table", FETCH_AGAIN)
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", "llama3"):
            raise InputError(f"{where}: {key} has rope_type {kind!r}", "Known: 'default' and 'llama3'")
        if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
            raise InputError(f"{where}: {key} turns a part of the head", "Only RoPE on whole heads can be represented")
        absent = [name for name in SCALING if name not in rope] if kind == "llama3" else []
        if absent:
            raise InputError(f"{where}: {key}.{absent[0]} is missing", FETCH_AGAIN)
        theta = rope.get("rope_theta", config.get("rope_theta", DEFAULTS["rope_theta"]))
        stated.append((theta, {name: rope[name] for name in SCALING} if kind == "llama3" else None))
    if len(stated) == 2 and stated[0] != stated[1]:
        raise InputError(
            f"{where}: rope_scaling and rope_parameters disagree", "Keep the one the model was trained with"
        )
    theta, scaling = stated[0] if stated else (config.get("rope_theta", DEFAULTS["rope_theta"]), None)
    if config.get("rope_theta", theta) != theta:
        raise InputError(
            f"{where}: rope_theta {config['rope_theta']} and rope_parameters' {theta} disagree",
            "Keep the one the model was trained with",
        )
    return theta, scaling


def read_config(folder: Path) -> ModelConfig:
    """The shape of the model in ``folder``, FP8 folders excepted.

    Raises:
        InputError: the folder does not exist, or its model cannot be represented exactly.
        DamagedError: its config.json cannot be read.
    """
    return config_from_hf(read_json(folder / CONFIG), str(folder / CONFIG))


def checked_weights(folder: Path, model: Transformer) -> dict[str, StoredTensor]:
    """The stored tensor of each entry of ``model``'s state (which may be on the ``meta`` device), in its order.

    A tied head may be missing; if it is stored, it must equal the embedding. Stored RoPE frequencies are ignored, since
    the configuration determines them.

    Raises:
        DamagedError: a tensor is missing, unexpected, or of another shape or kind; or a file is damaged.
        InputError: there are no safetensors files.
    """
    stored = {name: t for name, t in open_weights(folder).items() if not name.endswith(".rotary_emb.inv_freq")}
    expected = model.state_dict()
    if model.config.tied_embeddings and "lm_head.weight" in expected:
        del expected["lm_head.weight"]
        head, embedding = stored.pop("lm_head.weight", None), stored.get("model.embed_tokens.weight")
        if head and embedding and not torch.equal(head.read(), embedding.read()):
            raise InputError(
                f"{head.path}: lm_head.weight differs from the embedding although tie_word_embeddings is true",
                "Set tie_word_embeddings to false in config.json if the head is its own",
            )
    for name, tensor in expected.items():
        if name not in stored:
            raise DamagedError(f"{folder} lacks the tensor {name}", FETCH_AGAIN)
        found = stored[name]
        if found.shape != tuple(tensor.shape):
            raise DamagedError(
                f"{found.path}: {name} has shape {list(found.shape)}, config.json says {list(tensor.shape)}",
                FETCH_AGAIN,
            )
        if (found.dtype.itemsize == 1) != (tensor.dtype.itemsize == 1):
            raise DamagedError(
                f"{found.path}: {name} is stored as {found.dtype}, which config.json does not state", FETCH_AGAIN
            )
    surplus = next((t for name, t in stored.items() if name not in expected), None)
    if surplus is not None:
        raise DamagedError(
            f"{surplus.path}: the tensor {surplus.name} has no place in the model of config.json", FETCH_AGAIN
        )
    return {name: stored[name] for name in expected}


def _shape_only(config: ModelConfig) -> Transformer:
    with torch.device("meta"):
        return Transformer(config)


def _widest(weights: dict[str, StoredTensor]) -> torch.dtype:
    """The narrowest of bfloat16, float32 and float64 that holds every stored value exactly."""
    widest = torch.bfloat16 if all(t.dtype == torch.bfloat16 for t in weights.values()) else torch.float32
    return torch.float64 if any(t.dtype == torch.float64 for t in weights.values()) else widest


@torch.no_grad()
def load_folder(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Transformer:
    """Load the model in ``folder``, in ``dtype``; None: the narrowest type from bfloat16 up that loses nothing.

    Raises:
        InputError, DamagedError: see :func:`read_config` and :func:`checked_weights`.
    """
    config = read_config(folder)
    weights = checked_weights(folder, _shape_only(config))
    model = build(config, device, dtype or _widest(weights))
    fill(model, weights)
    return model


def load_for_training(folder: Path, device: torch.device | str = "cpu") -> Transformer:
    """Load the model in ``folder`` in FP32, whatever type it is stored in: training needs the precision.

    Raises:
        InputError, DamagedError: see :func:`load_folder`.
    """
    return load_folder(folder, device, torch.float32)


@torch.no_grad()
def fill(model: Transformer, weights: dict[str, StoredTensor]) -> None:
    """Copy stored values into an allocated model."""
    state = model.state_dict()
    for name, tensor in weights.items():
        state[name].copy_(tensor.read())


def save_folder(
    model: Transformer,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    generation: dict[str, Any] | None = None,
) -> None:
    """Write ``model`` as a Hugging Face folder; the same model gives the same bytes.

    Args:
        folder: created if missing; must not hold weights.
        generation: the content of generation_config.json (bos_token_id, eos_token_id, sampling defaults, ...); its
            token ids are also written to config.json.

    Raises:
        InputError: the folder holds weights, or the model holds FP8 ones.
        HerdError: the disk is full.
    """
    state = model.state_dict()
    if model.config.tied_embeddings:
        state.pop("lm_head.weight", None)
    if any(name.endswith(".lora_a") for name in state):
        raise InputError("a model with LoRA adapters is no plain folder", "Merge them first: model.lora.merge_lora")
    if any(tensor.dtype.itemsize == 1 for tensor in state.values()):
        raise InputError(
            "a model with FP8 weights cannot be saved in another type", "Save the model from which it was quantized"
        )
    _write(
        folder,
        ((n, t.to(dtype)) for n, t in state.items()),
        model.config,
        dtype,
        max_shard_bytes=max_shard_bytes,
        generation=generation,
    )


def _write(
    folder: Path,
    tensors: Iterator[tuple[str, Tensor]],
    config: ModelConfig,
    dtype: torch.dtype,
    *,
    max_shard_bytes: int,
    generation: dict[str, Any] | None,
) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    size = write_weights(folder, tensors, max_shard_bytes)
    if generation is not None:
        write_json(folder / GENERATION, generation)
    write_json(folder / CONFIG, config_to_hf(config, dtype, generation))
    return size


def copy_companions(folder: Path, out: Path) -> list[str]:
    """Copy the tokenizer, chat template and generation settings that ``folder`` has; returns their names.

    Raises:
        DamagedError: one of them is not valid JSON.
    """
    present = [name for name in COMPANIONS if (folder / name).is_file()]
    for name in present:
        if name.endswith(".json"):
            read_json(folder / name)
        shutil.copyfile(folder / name, out / name)
    return present


def generation_of(folder: Path) -> dict[str, Any] | None:
    """A folder's generation settings or, without such a file, the token ids of its config.json, if any."""
    if (folder / GENERATION).is_file():
        return read_json(folder / GENERATION)
    config = read_json(folder / CONFIG)
    ids = {key: config[key] for key in TOKEN_IDS if config.get(key) is not None}
    return ids or None


def import_hf(folder: Path, out: Path) -> dict[str, Any]:
    """Check a Hugging Face folder and copy it, normalized and without loss, into the model artifact ``out``.

    Returns:
        counts: parameters, bytes, dtype.

    Raises:
        InputError: ``out`` exists, or ``folder`` holds no model that can be represented exactly.
        DamagedError: a file is missing or damaged.
    """
    began = time.monotonic()
    working, counts = _rewrite(folder, out, None)
    sources = {
        p.name: hash_file(p) for p in sorted(folder.iterdir()) if p.suffix in {".json", ".jinja", ".safetensors"}
    }
    entry = InputEntry(path=str(folder), content=hash_json(sources))
    code = {"herdlm": __version__}
    publish(
        working,
        out,
        kind="model",
        stage="import-hf",
        fingerprint=hash_json([entry.content, code]),
        inputs={"folder": entry},
        recipe={},
        seeds={},
        counts=counts,
        seconds=time.monotonic() - began,
        code=code,
    )
    return counts


def export_hf(folder: Path, out: Path, dtype: str = "bfloat16") -> dict[str, Any]:
    """Write the model artifact ``folder`` as a plain Hugging Face folder, in "bfloat16" or "float32".

    Returns and raises what :func:`import_hf` does.
    """
    if dtype not in EXPORTS:
        raise InputError(f"dtype {dtype!r} is unknown", f"Use {' or '.join(EXPORTS)}")
    working, counts = _rewrite(folder, out, EXPORTS[dtype])
    working.rename(out)
    return counts


def _rewrite(folder: Path, out: Path, dtype: torch.dtype | None) -> tuple[Path, dict[str, Any]]:
    """Stream ``folder`` into a working folder beside ``out``, in ``dtype``; None: the narrowest that loses nothing."""
    if out.exists():
        raise InputError(f"{out} exists already", "Choose another folder, or remove this one")
    config = read_config(folder)
    weights = checked_weights(folder, _shape_only(config))
    dtype = dtype or _widest(weights)
    working = out.with_name(f".{out.name}.partial")
    shutil.rmtree(working, ignore_errors=True)
    try:
        tensors = ((name, tensor.read().to(dtype)) for name, tensor in weights.items())
        size = _write(
            working, tensors, config, dtype, max_shard_bytes=MAX_SHARD_BYTES, generation=generation_of(folder)
        )
        copy_companions(folder, working)
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        raise
    return working, {"parameters": config.parameters, "bytes": size, "dtype": str(dtype).removeprefix("torch.")}
