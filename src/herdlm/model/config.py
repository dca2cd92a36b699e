"""The shape of a model, with the rules of transformers, and its counts of parameters and FLOPs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Bounds far above any model: beyond them, a file is damaged, and a shape would take hours or all memory.
MAX_LAYERS = 2048
MAX_WIDTH = 2**20
MAX_CONTEXT = 2**30
RopeKind = Literal["llama3", "linear", "dynamic", "yarn"]
ROPE_KEYS: dict[RopeKind, tuple[str, ...]] = {
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
}
"""The keys that each kind of scaling reads."""


class RopeScaling(BaseModel):
    """A scaling of RoPE for long contexts, with the names and rules of transformers.

    ``llama3`` is Llama 3.1's (report, section 3.2; factors of the released checkpoints), ``linear`` divides every
    rate, and ``yarn`` is arXiv 2309.00071. ``dynamic`` is kept for other programs: it changes no rate until a text
    exceeds ``max_seq_len``, which no text here does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rope_type: RopeKind = "llama3"
    factor: float = Field(8.0, ge=1, le=1e6)
    low_freq_factor: float = Field(1.0, gt=0, le=1e6)
    high_freq_factor: float = Field(4.0, gt=0, le=1e6)
    original_max_position_embeddings: int = Field(8192, gt=0, le=MAX_CONTEXT)
    beta_fast: float = Field(
        32.0, gt=0, le=1e6, description="turns in the original context from which a pair keeps its rate"
    )
    beta_slow: float = Field(1.0, gt=0, le=1e6, description="turns up to which a pair's rate is divided by factor")
    attention_factor: float | None = Field(None, ge=0, le=1e6, description="of queries and keys; default: from factor")
    mscale: float | None = Field(
        None, ge=0, le=1e6, description="with mscale_all_dim, a part of the default attention_factor"
    )
    mscale_all_dim: float | None = Field(None, ge=0, le=1e6)
    truncate: bool = Field(True, description="round the first and last pair of YaRN's ramp to whole pairs")

    @model_validator(mode="after")
    def _keys_fit(self) -> RopeScaling:
        for name, field in type(self).model_fields.items():
            foreign = name not in ("rope_type", *ROPE_KEYS[self.rope_type])
            if foreign and getattr(self, name) != field.default:
                keys = ", ".join(ROPE_KEYS[self.rope_type])
                raise ValueError(f"rope_type {self.rope_type} does not read {name}: remove it; its keys are {keys}")
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor {self.high_freq_factor} is not above low_freq_factor {self.low_freq_factor}"
            )
        return self

    def table(self) -> dict[str, Any]:
        """``rope_type`` and the keys that it reads, as config.json has them; keys without a value are left out."""
        values = {name: getattr(self, name) for name in ROPE_KEYS[self.rope_type]}
        return {"rope_type": self.rope_type, **{name: value for name, value in values.items() if value is not None}}


def check_scaling(scaling: RopeScaling | None) -> RopeScaling | None:
    """The scaling that a recipe asks for, unchanged.

    Raises:
        ValueError: it would change nothing.
    """
    if scaling is not None and scaling.rope_type == "dynamic":
        raise ValueError("rope_type dynamic changes nothing in training: use llama3, yarn or linear")
    return scaling


class ModelConfig(BaseModel):
    """The shape of a dense decoder-only Transformer.

    ``head`` is "lm" for next-token logits and "score" for the one number of a reward model. ``family`` names the
    architecture whose folders the model is written as. Llama and Mistral are the same model; Qwen2 has biases on
    queries, keys and values alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(gt=0, le=2**24)
    dim: int = Field(gt=0, le=MAX_WIDTH, description="D, the model dimension")
    layers: int = Field(gt=0, le=MAX_LAYERS)
    heads: int = Field(gt=0, le=MAX_WIDTH, description="H, query heads")
    kv_heads: int = Field(gt=0, le=MAX_WIDTH, description="K, key/value heads; a divisor of heads")
    ffn_dim: int = Field(gt=0, le=16 * MAX_WIDTH, description="F, the feed-forward dimension")
    head_dim: int | None = Field(None, gt=0, le=MAX_WIDTH, description="C, the head size; default: dim / heads")
    max_seq_len: int = Field(8192, gt=0, le=MAX_CONTEXT)
    rope_theta: float = Field(500_000.0, gt=0, le=1e15)
    rope_scaling: RopeScaling | None = None
    norm_eps: float = Field(1e-5, gt=0, le=1)
    tied_embeddings: bool = False
    head: Literal["lm", "score"] = "lm"
    family: Literal["llama", "mistral", "qwen2"] = "llama"
    attention_bias: bool = Field(False, description="biases on all four matrices of attention")
    mlp_bias: bool = Field(False, description="biases on all three matrices of the feed-forward")

    @model_validator(mode="after")
    def _shapes_fit(self) -> ModelConfig:
        if self.dim % self.heads:  # even with head_dim: Hugging Face's Llama refuses it
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}: change one")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.head_size % 2:
            raise ValueError(f"the head size {self.head_size} is odd: RoPE rotates pairs of channels")
        if self.rope_scaling and self.rope_scaling.rope_type == "yarn" and self.rope_theta <= 1:
            raise ValueError(f"rope_theta {self.rope_theta} is not above 1, which rope_type yarn needs: raise it")
        for key in ("attention_bias", "mlp_bias"):
            if getattr(self, key) and self.family != "llama":
                raise ValueError(f"{key} is a key of the llama family, not of {self.family}: change one")
        return self

    @property
    def head_size(self) -> int:
        """C, the size of one attention head."""
        return self.head_dim or self.dim // self.heads

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys and values have biases."""
        return self.attention_bias or self.family == "qwen2"

    @property
    def layer_matrix_weights(self) -> int:
        """Weights of the matrices of one layer: attention and feed-forward."""
        attention = self.dim * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.dim * self.ffn_dim

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer: matrices, biases and two norms."""
        qkv = (self.heads + 2 * self.kv_heads) * self.head_size
        biases = qkv * self.qkv_bias + self.dim * self.attention_bias + (2 * self.ffn_dim + self.dim) * self.mlp_bias
        return self.layer_matrix_weights + biases + 2 * self.dim

    @property
    def body_parameters(self) -> int:
        """Parameters without embedding and head."""
        return self.layers * self.layer_parameters + self.dim

    @property
    def parameters(self) -> int:
        """All parameters; a tied head and embedding count once."""
        embedding = self.vocab_size * self.dim
        if self.head == "score":
            return self.body_parameters + embedding + self.dim
        return self.body_parameters + embedding * (1 if self.tied_embeddings else 2)

    def flops_per_token(self, context: int) -> int:
        """Training FLOPs per token, forward and backward, with causal attention over ``context`` tokens.

        6 per matrix weight (with the head, without the embedding lookup), and 6 * L * H * C * context for causal
        attention (Llama 3 report, section 3.3; twice that for full attention).
        """
        head = self.vocab_size * self.dim if self.head == "lm" else self.dim
        matrices = self.layers * self.layer_matrix_weights + head
        return 6 * matrices + 6 * self.layers * self.heads * self.head_size * context

    def full_attention_flops_per_token(self, context: int) -> int:
        """As :meth:`flops_per_token`, with attention counted in full, as in most published MFU."""
        return 2 * self.flops_per_token(context) - self.flops_per_token(0)
