"""Shape and parameters of a model in GGUF, as Hugging Face's config.json and parameter names, and back.

GGUF has the same matrices under other names. One thing differs in content: for the architecture ``llama``, llama.cpp
rotates channels 2i and 2i + 1 of a head together, where Hugging Face rotates i and i + C/2. So the rows of q and k are
in another order. The architecture ``qwen2`` has Hugging Face's order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from herdlm.base.errors import DamagedError, InputError
from herdlm.model.config import ModelConfig, RopeScaling
from herdlm.model.gguf_file import GgufFile, GgufTensor
from herdlm.model.rope import inverse_frequencies, kept_llama3
from herdlm.model.weights import FETCH_AGAIN

ARCHITECTURES = ("llama", "qwen2")
ROPE_FACTORS = "rope_freqs.weight"
ROPE_TOLERANCE = 1e-4  # relative; files round the factors to float32
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
HF_LAYER = {short: long for long, short in LAYER.items()}
HF_ENDS = {short: long for long, short in ENDS.items()}
# Keys below the architecture's name that change nothing in the model, or are read below.
KNOWN = {
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "tensor_data_layout",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
}
NEUTRAL = {"expert_count": 0, "expert_used_count": 0, "attention.causal": True, "rope.scaling.yarn_ext_factor": 1.0}


def gguf_name(name: str) -> str:
    """GGUF's name of the Hugging Face parameter ``name``."""
    module, _, kind = name.rpartition(".")
    if module in ENDS:
        return f"{ENDS[module]}.{kind}"
    _, _, number, part = module.split(".", 3)
    return f"blk.{number}.{LAYER[part]}.{kind}"


def hf_name(name: str) -> str | None:
    """The Hugging Face name of the GGUF tensor ``name``, or None if there is none."""
    module, _, kind = name.rpartition(".")
    if module in HF_ENDS:
        return f"{HF_ENDS[module]}.{kind}"
    parts = module.split(".")
    if len(parts) == 3 and parts[0] == "blk" and parts[2] in HF_LAYER:
        return f"model.layers.{parts[1]}.{HF_LAYER[parts[2]]}.{kind}"
    return None


def heads_of(name: str, config: ModelConfig) -> int | None:
    """The heads whose rows llama.cpp's order permutes in the Hugging Face parameter ``name``; None: not permuted."""
    return config.heads if ".q_proj." in name else config.kv_heads if ".k_proj." in name else None


def side_by_side(values: Tensor, heads: int) -> Tensor:
    """Rows [H * C, ...] of q or k from Hugging Face's order into that of llama.cpp's architecture ``llama``."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).transpose(1, 2).reshape(values.shape)


def half_split(values: Tensor, heads: int) -> Tensor:
    """The inverse of :func:`side_by_side`."""
    return values.reshape(heads, -1, 2, *values.shape[1:]).transpose(1, 2).reshape(values.shape)


def hf_config(file: GgufFile) -> dict[str, Any]:
    """The config.json of the model in a GGUF file, in the form that transformers reads.

    Raises:
        InputError, DamagedError: the architecture or a key is unknown, missing or out of range.
    """
    data, where = file.metadata, str(file.path)
    arch = data.get("general.architecture")
    if arch not in ARCHITECTURES:
        raise InputError(
            f"{where}: general.architecture is {arch!r}", f"Known architectures: {', '.join(ARCHITECTURES)}"
        )
    own = {key.removeprefix(f"{arch}."): value for key, value in data.items() if key.startswith(f"{arch}.")}
    for key, value in own.items():
        if key not in KNOWN and NEUTRAL.get(key) != value:
            raise InputError(f"{where}: {arch}.{key} = {value!r} cannot be represented", "Use a plain Llama or Qwen2")

    def number(key: str, kind: type, default: Any = None) -> Any:
        value = own.get(key, default)
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        if value is None:
            raise DamagedError(f"{where}: key {arch}.{key} is missing", FETCH_AGAIN)
        if isinstance(value, bool) or not isinstance(value, kind if kind is int else (int, float)) or value <= 0:
            raise InputError(f"{where}: {arch}.{key} is {value!r}", "It must be one number above 0")
        return _shortest(value) if kind is float else value

    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise DamagedError(f"{where} lacks the tensor token_embd.weight", FETCH_AGAIN)
    dim, heads = number("embedding_length", int), number("attention.head_count", int)
    head_size = number("attention.key_length", int, own.get("rope.dimension_count", dim // heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if own.get(key, head_size) != head_size:
            raise InputError(f"{where}: {arch}.{key} is {own[key]}, the head size {head_size}", "They must be equal")
    kinds = _kinds(file)
    context = number("context_length", int)
    return {
        "architectures": ["Qwen2ForCausalLM" if kinds["model_type"] == "qwen2" else "LlamaForCausalLM"],
        "vocab_size": embedding.shape[0],
        "hidden_size": dim,
        "intermediate_size": number("feed_forward_length", int),
        "num_hidden_layers": number("block_count", int),
        "num_attention_heads": heads,
        "num_key_value_heads": number("attention.head_count_kv", int, heads),
        "head_dim": head_size,
        "max_position_embeddings": context,
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon", float),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "hidden_act": "silu",
        "sliding_window": own.get("attention.sliding_window") or None,
        "rope_parameters": {
            "rope_theta": number("rope.freq_base", float, 10_000.0),
            **_rope(file, own, number, head_size, context),
        },
        **kinds,
    }


def _kinds(file: GgufFile) -> dict[str, Any]:
    """The model type that has the biases of the file: Qwen2's are those of q, k and v, Llama's all of attention."""
    present = {name.split(".")[2] for name in file.tensors if name.startswith("blk.") and name.endswith(".bias")}
    inputs, output, mlp = {"attn_q", "attn_k", "attn_v"}, {"attn_output"}, {"ffn_gate", "ffn_up", "ffn_down"}
    if present == inputs:
        return {"model_type": "qwen2", "use_sliding_window": False}
    if present - mlp not in (set(), inputs | output) or present & mlp not in (set(), mlp):
        raise InputError(f"{file.path}: only {', '.join(sorted(present))} have biases", "Use a Llama or Qwen2 model")
    return {"model_type": "llama", "attention_bias": inputs <= present, "mlp_bias": mlp <= present}


def _rope(file: GgufFile, own: Mapping[str, Any], number: Any, head_size: int, context: int) -> dict[str, Any]:
    factors = file.tensors.get(ROPE_FACTORS)
    kind = own.get("rope.scaling.type", "none")
    factor = _shortest(own.get("rope.scaling.factor", 1.0)) or 1.0
    scaled = kind != "none" and (factor != 1.0 or kind not in ("linear", "yarn"))
    if factors is not None:
        if scaled:
            raise InputError(f"{file.path} has both {ROPE_FACTORS} and rope.scaling.type {kind}", "Keep one of them")
        theta = number("rope.freq_base", float, 10_000.0)
        return {"rope_type": "llama3", **_llama3_scaling(factors, theta, head_size, context)}
    if not scaled:
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise InputError(f"{file.path}: rope.scaling.type is {kind!r}", "Known: none, linear and yarn")
    attention = _shortest(own.get("rope.scaling.attn_factor", 1.0)) * (0.1 * math.log(factor) + 1)
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": number("rope.scaling.original_context_length", int, context),
        "beta_fast": number("rope.scaling.yarn_beta_fast", float, 32.0),
        "beta_slow": number("rope.scaling.yarn_beta_slow", float, 1.0),
        **({} if own.get("rope.scaling.attn_factor", 1.0) == 1.0 else {"attention_factor": attention}),
    }


def _llama3_scaling(stored: GgufTensor, theta: float, head_size: int, context: int) -> dict[str, Any]:
    """The four numbers of Llama 3.1's scaling from what each pair is divided by, [C/2].

    The blend between slowed and kept pairs is a line over turns per position, which has two numbers. The third is a
    choice: ``low_freq_factor`` is 1, as in all released models. Where fewer than two pairs are blended,
    ``high_freq_factor`` is 4, as in those models too.
    """
    factors = stored.read().double()
    if factors.shape != (head_size // 2,):
        raise DamagedError(
            f"{stored.path}: {ROPE_FACTORS} has {len(factors)} values, not {head_size // 2}", FETCH_AGAIN
        )
    frequencies = 1.0 / theta ** (torch.arange(0, head_size, 2).double() / head_size)
    factor = float(factors.max())
    candidates = [(4.0, 8192), (4.0, context), *((4.0, 2**power) for power in range(21))]
    keep = (1 / factors - 1 / factor) / (1 - 1 / factor) if factor > 1 else torch.ones_like(factors)
    blended = (keep > 1e-3) & (keep < 1 - 1e-3)
    turns, kept = frequencies[blended] / (2 * math.pi), keep[blended]
    if len(kept):
        candidates.insert(0, (4.0, round(float((3 * kept[0] + 1) / turns[0]))))
    if len(kept) > 1:
        slope = float((kept[-1] - kept[0]) / (turns[-1] - turns[0]))
        offset = slope * float(turns[0]) - float(kept[0])  # low / (high - low)
        if offset > 0:
            candidates.insert(0, (round(1 + 1 / offset, 3), round(slope / offset)))
    for high, original in candidates:
        if high <= 1 or original < 1:
            continue
        scaling = RopeScaling(
            factor=_shortest(factor),
            low_freq_factor=1.0,
            high_freq_factor=high,
            original_max_position_embeddings=original,
        )
        kept = kept_llama3(frequencies, scaling)
        again = 1 / (kept + (1 - kept) / scaling.factor)
        if torch.allclose(again, factors, rtol=ROPE_TOLERANCE, atol=0):
            return scaling.table()
    raise InputError(f"{stored.path}: {ROPE_FACTORS} is not Llama 3.1's scaling of RoPE", "Use a plain Llama or Qwen2")


def gguf_config(config: ModelConfig, hf: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a model by GGUF's keys, from its shape and the config.json that herdlm writes for it.

    Raises:
        InputError: llama.cpp cannot represent the model.
    """
    arch = "qwen2" if hf["model_type"] == "qwen2" else "llama"
    if config.head != "lm":
        raise InputError("a reward model has no place in GGUF", "Export the model itself, or use export-hf")
    values: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_seq_len,
        "embedding_length": config.dim,
        "block_count": config.layers,
        "feed_forward_length": config.ffn_dim,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_size,
        "attention.value_length": config.head_size,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.dimension_count": config.head_size,
        "rope.freq_base": float(config.rope_theta),
        **_gguf_rope(hf["rope_parameters"]),
    }
    return {"general.architecture": arch, "general.type": "model"} | {f"{arch}.{k}": v for k, v in values.items()}


def _gguf_rope(rope: Mapping[str, Any]) -> dict[str, Any]:
    kind = rope["rope_type"]
    if kind in ("default", "llama3"):  # llama3's is the tensor of factors
        return {}
    if kind not in ("linear", "yarn"):
        raise InputError(f"llama.cpp has no RoPE scaling of type {kind}", "Export another model, or use export-hf")
    factor = float(rope["factor"])
    values = {"rope.scaling.type": kind, "rope.scaling.factor": factor}
    if kind == "linear":
        return values
    usual = 0.1 * math.log(factor) + 1
    attention = rope.get("attention_factor")
    if attention is None and rope.get("mscale") and rope.get("mscale_all_dim"):
        scales = [0.1 * rope[key] * math.log(factor) + 1 for key in ("mscale", "mscale_all_dim")]
        attention = scales[0] / scales[1]
    if rope.get("truncate") is False:
        raise InputError("llama.cpp rounds the bounds of yarn's ramp, which truncate = false forbids", "Use export-hf")
    return values | {
        "rope.scaling.original_context_length": int(rope["original_max_position_embeddings"]),
        "rope.scaling.yarn_beta_fast": float(rope.get("beta_fast") or 32.0),
        "rope.scaling.yarn_beta_slow": float(rope.get("beta_slow") or 1.0),
        "rope.scaling.attn_factor": (attention or usual) / usual,
    }


def rope_factors(config: ModelConfig, hf: Mapping[str, Any]) -> Tensor | None:
    """What llama.cpp divides each pair's rotation rate by, [C/2] float32; None without Llama 3.1's scaling."""
    if hf["rope_parameters"]["rope_type"] != "llama3":
        return None
    return inverse_frequencies(config.model_copy(update={"rope_scaling": None})) / inverse_frequencies(config)


def _shortest(value: float) -> float:
    """The shortest decimal that is the same float32: 1e-05 where a file has 9.999999747378752e-06."""
    return float(str(torch.tensor(value, dtype=torch.float32).numpy()))
