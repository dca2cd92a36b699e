"""The shape of a model, with the rules of Hugging Face's Llama, and its counts of parameters and FLOPs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RopeScaling(BaseModel):
    """Llama 3.1's scaling of RoPE for long contexts (report, section 3.2; factors of the released checkpoints)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    factor: float = Field(8.0, ge=1)
    low_freq_factor: float = Field(1.0, gt=0)
    high_freq_factor: float = Field(4.0, gt=0)
    original_max_position_embeddings: int = Field(8192, gt=0)

    @model_validator(mode="after")
    def _band_is_not_empty(self) -> RopeScaling:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor {self.high_freq_factor} is not above low_freq_factor {self.low_freq_factor}"
            )
        return self


class ModelConfig(BaseModel):
    """The shape of a dense decoder-only Transformer.

    ``head`` is "lm" for next-token logits and "score" for the one number of a reward model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(gt=0)
    dim: int = Field(gt=0, description="D, the model dimension")
    layers: int = Field(gt=0)
    heads: int = Field(gt=0, description="H, query heads")
    kv_heads: int = Field(gt=0, description="K, key/value heads; a divisor of heads")
    ffn_dim: int = Field(gt=0, description="F, the feed-forward dimension")
    head_dim: int | None = Field(None, gt=0, description="C, the head size; default: dim / heads")
    max_seq_len: int = Field(8192, gt=0)
    rope_theta: float = Field(500_000.0, gt=0)
    rope_scaling: RopeScaling | None = None
    norm_eps: float = Field(1e-5, gt=0)
    tied_embeddings: bool = False
    head: Literal["lm", "score"] = "lm"

    @model_validator(mode="after")
    def _shapes_fit(self) -> ModelConfig:
        if self.dim % self.heads:  # even with head_dim: Hugging Face's Llama refuses it
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}: change one")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.head_size % 2:
            raise ValueError(f"the head size {self.head_size} is odd: RoPE rotates pairs of channels")
        return self

    @property
    def head_size(self) -> int:
        """C, the size of one attention head."""
        return self.head_dim or self.dim // self.heads

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer: attention, feed-forward and two norms."""
        attention = self.dim * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.dim * self.ffn_dim + 2 * self.dim

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
        norms = self.layers * 2 * self.dim + self.dim
        head = self.vocab_size * self.dim if self.head == "lm" else self.dim
        return 6 * (self.body_parameters - norms + head) + 6 * self.layers * self.heads * self.head_size * context

    def full_attention_flops_per_token(self, context: int) -> int:
        """As :meth:`flops_per_token`, with attention counted in full, as in most published MFU."""
        return 2 * self.flops_per_token(context) - self.flops_per_token(0)
