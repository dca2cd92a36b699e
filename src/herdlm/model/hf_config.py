"""Translates between config.json of Hugging Face's Llama, Mistral or Qwen2 and the shape of a Transformer.

A model that a Transformer cannot represent exactly is refused, by key and value. config.json states RoPE in the old
form (``rope_theta``, ``rope_scaling``) and in the new one (``rope_parameters``), so that transformers 4 and 5 and vLLM
read the same numbers.
"""

from __future__ import annotations

from typing import Any

import torch

from herdlm.base.errors import InputError
from herdlm.base.recipe import parse
from herdlm.model.config import ROPE_KEYS, ModelConfig
from herdlm.model.weights import FETCH_AGAIN

FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}
HEADS = {"lm": "ForCausalLM", "score": "ForSequenceClassification"}
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")

# transformers' values of optional keys, of all families and of each; all other numbers are required.
COMMON = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False}
THETA = 10_000.0
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {**COMMON, "max_position_embeddings": 2048},
    "mistral": {**COMMON, "max_position_embeddings": 131_072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {**COMMON, "max_position_embeddings": 32_768, "num_key_value_heads": 32, "sliding_window": 4096},
}
# Key, the values that a Transformer supports, and the meaning of any other value.
FIXED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("hidden_act", (None, "silu", "swish"), "another activation function"),
    ("partial_rotary_factor", (None, 1, 1.0), "RoPE on a part of the head"),
    ("rope_interleaved", (None, False), "another channel order in RoPE"),
    ("attn_logit_softcapping", (None,), "softcapped attention"),
    ("final_logit_softcapping", (None,), "softcapped logits"),
    ("use_qk_norm", (None, False), "norms of queries and keys"),
    ("qk_norm", (None, False), "norms of queries and keys"),
    ("num_experts", (None, 0, 1), "a mixture of experts"),
    ("num_local_experts", (None, 0, 1), "a mixture of experts"),
)
# What other architectures have that a Transformer does not.
OTHERS = {
    "gemma2": "softcapped logits",
    "gemma3_text": "norms of queries and keys",
    "mixtral": "a mixture of experts",
    "olmo2": "norms of queries and keys",
    "phi3": "joined matrices and longrope",
    "qwen2_moe": "a mixture of experts",
    "qwen3": "norms of queries and keys",
    "qwen3_moe": "a mixture of experts",
}
# Keys of a table of RoPE that change no number in any kind.
HARMLESS = ("rope_type", "type", "rope_theta", "partial_rotary_factor", "finetuned", "original_max_position_embeddings")


def config_to_hf(config: ModelConfig, dtype: torch.dtype, generation: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of config.json for weights of ``dtype``; ``generation`` has the bos, eos and pad token ids."""
    name = str(dtype).removeprefix("torch.")
    scaling = config.rope_scaling and config.rope_scaling.table()
    labels = {} if config.head == "lm" else {"id2label": {"0": "score"}, "label2id": {"score": 0}}
    own: dict[str, dict[str, Any]] = {
        "llama": {"attention_bias": config.attention_bias, "mlp_bias": config.mlp_bias},
        "mistral": {"sliding_window": None},
        "qwen2": {"use_sliding_window": False, "sliding_window": None, "max_window_layers": config.layers},
    }
    return {
        "architectures": [FAMILIES[config.family] + HEADS[config.head]],
        "model_type": config.family,
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
        **own[config.family],
        "attention_dropout": 0.0,
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
    family, head = _architecture(config, where)
    quantization = config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise InputError(f"{where}: the weights are quantized ({method})", "Use the folder from which it was quantized")
    for key, known, meaning in FIXED:
        if config.get(key) not in known:
            raise InputError(
                f"{where}: {key} = {config[key]!r} means {meaning}, which no model here has",
                "Use a folder of the plain Llama, Mistral or Qwen2 architecture",
            )

    def number(key: str) -> Any:
        value = config.get(key, DEFAULTS[family].get(key))
        if value is None:
            raise InputError(f"{where}: key {key} is missing", FETCH_AGAIN)
        return value

    def bias(key: str) -> Any:
        # transformers gives Qwen2 its biases, and no others, whatever this key says.
        ignored = family == "qwen2" and key == "attention_bias"
        return False if ignored or config.get(key) is None else config[key]

    dim, heads = number("hidden_size"), number("num_attention_heads")
    head_dim, kv_heads = (
        config.get("head_dim"),
        config.get("num_key_value_heads", DEFAULTS[family].get("num_key_value_heads")),
    )
    implied = isinstance(dim, int) and isinstance(heads, int) and heads > 0 and head_dim == dim // heads
    theta, scaling = _rope(config, number("max_position_embeddings"), where)
    shape = parse(
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
            "family": family,
            "attention_bias": bias("attention_bias"),
            "mlp_bias": bias("mlp_bias"),
        },
        where,
    )
    _check_window(config, shape, where)
    return shape


def _architecture(config: dict[str, Any], where: str) -> tuple[str, str]:
    """Family and head of the model."""
    names, kind = config.get("architectures"), config.get("model_type")
    known = {
        (FAMILIES[family] + suffix, family): (family, head) for family in FAMILIES for head, suffix in HEADS.items()
    }
    found = known.get((str(names[0]), str(kind))) if isinstance(names, list) and len(names) == 1 else None
    if found is None:
        why = f", which has {OTHERS[kind]}" if isinstance(kind, str) and kind in OTHERS else ""
        raise InputError(
            f"{where}: architectures {names!r} with model_type {kind!r} is not an architecture known here{why}",
            f"Use a folder of one of {', '.join(name for name, _ in known)}, with the model_type of the same name",
        )
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)
    if found[1] == "score" and count != 1:
        raise InputError(f"{where}: the classifier has {count} labels", "Only a reward model's single score is known")
    return found


def _check_window(config: dict[str, Any], shape: ModelConfig, where: str) -> None:
    """Refuse attention over a window that is shorter than the longest text.

    Raises:
        InputError: a layer attends to fewer tokens than ``max_position_embeddings``.
    """
    kinds, window = (
        config.get("layer_types"),
        config.get("sliding_window", DEFAULTS[shape.family].get("sliding_window")),
    )
    if shape.family == "qwen2" and not config.get("use_sliding_window", False):
        window = None
    if kinds is not None and not isinstance(kinds, list):
        raise InputError(f"{where}: layer_types = {kinds!r} is not a list", FETCH_AGAIN)
    strange = [kind for kind in kinds or () if kind not in ("full_attention", "sliding_attention")]
    if strange or (window is None and "sliding_attention" in (kinds or ())):
        raise InputError(f"{where}: layer_types = {kinds!r}", "Only full_attention can be represented")
    if window is None or (type(window) is int and window >= shape.max_seq_len):
        return
    if shape.family == "qwen2":  # the only family whose layers differ
        first = config.get("max_window_layers", 28)
        if kinds is None and type(first) is int and first >= shape.layers:
            return
        if kinds is not None and "sliding_attention" not in kinds:
            return
    raise InputError(
        f"{where}: sliding_window = {window!r} is less than max_position_embeddings = {shape.max_seq_len}, and no "
        "model here attends to a window",
        "For texts up to the window, where it hides nothing, set max_position_embeddings to it",
    )


def _rope(config: dict[str, Any], longest: Any, where: str) -> tuple[Any, dict[str, Any] | None]:
    """RoPE's base and scaling, from the old keys, the new ones, or both if they agree."""
    stated = []
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise InputError(f"{where}: {key} is not a table", FETCH_AGAIN)
        original = config.get("original_max_position_embeddings")  # which transformers prefers to the table's
        if original is None:
            original = rope.get("original_max_position_embeddings", longest)
        scaling = _scaling(rope | {"original_max_position_embeddings": original}, f"{where}: {key}")
        stated.append((rope.get("rope_theta", config.get("rope_theta", THETA)), scaling))
    if len(stated) == 2 and stated[0] != stated[1]:
        raise InputError(
            f"{where}: rope_scaling and rope_parameters disagree", "Keep the one the model was trained with"
        )
    theta, scaling = stated[0] if stated else (config.get("rope_theta", THETA), None)
    if config.get("rope_theta", theta) != theta:
        raise InputError(
            f"{where}: rope_theta {config['rope_theta']} and rope_parameters' {theta} disagree",
            "Keep the one the model was trained with",
        )
    return theta, scaling


def _scaling(rope: dict[str, Any], where: str) -> dict[str, Any] | None:
    """The scaling that a table of RoPE states; None for none."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    keys = next((keys for known, keys in ROPE_KEYS.items() if known == kind), ())
    if kind not in ("default", *ROPE_KEYS):
        raise InputError(
            f"{where} has rope_type {kind!r}, which no model here has",
            f"Use a model with rope_type default, {', '.join(ROPE_KEYS)}",
        )
    if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise InputError(
            f"{where}.partial_rotary_factor = {rope['partial_rotary_factor']!r} turns a part of the head",
            "Only RoPE on whole heads can be represented",
        )
    for name, value in rope.items():
        if name not in (*keys, *HARMLESS) and value is not None and not (kind == "default" and name == "factor"):
            raise InputError(
                f"{where}.{name} = {value!r} is no key of rope_type {kind!r}",
                f"Remove {name} if the model was trained without it; transformers does not read it",
            )
    if kind == "default":
        return None
    required = ROPE_KEYS["llama3"] if kind == "llama3" else ("factor",)
    absent = next((name for name in required if rope.get(name) is None), None)
    if absent is not None:
        raise InputError(f"{where}.{absent} is missing", FETCH_AGAIN)
    return {"rope_type": kind, **{name: rope[name] for name in keys if rope.get(name) is not None}}
