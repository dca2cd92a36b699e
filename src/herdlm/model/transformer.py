"""The one Transformer of herdlm: dense, decoder-only, pre-norm, SwiGLU, grouped-query attention, RoPE.

Shape letters: B batch, T sequence, D model, F feed-forward, H query heads, K key/value heads, C head size, V
vocabulary. Parameters have the names of Hugging Face's Llama, so import and export rename nothing. The design follows
section 3.2 of the Llama 3 report (arXiv 2407.21783).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from herdlm.base.seeds import derive_seed
from herdlm.model.attention import Attend
from herdlm.model.config import ModelConfig, RopeScaling
from herdlm.model.rope import inverse_frequencies, rotation_scale


class RMSNorm(nn.RMSNorm):
    """RMSNorm (Zhang and Sennrich, arXiv 1910.07467) that costs a CPU half of what torch's costs.

    On a CPU, outside of torch.compile, torch's is a chain of general operations whose results are all kept. This one
    keeps its input and one number per token, and returns the autocast type, so that no matrix after it casts again.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x [..., D] -> [..., D]."""
        own = type(x) is Tensor and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
        if not own or type(self.weight) is not nn.Parameter or torch.compiler.is_compiling():
            return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        out: Tensor = _RMSNorm.apply(x, self.weight, eps, dtype)  # type: ignore[no-untyped-call]
        return out


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        out: Tensor = (x * inverse).mul_(weight).to(dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        gradient, normal = gradient.to(x.dtype), x * inverse
        d_weight = (gradient * normal).flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        scaled = gradient * weight
        shared = torch.linalg.vecdot(scaled, normal)[..., None].div_(x.shape[-1])
        return scaled.sub_(normal.mul_(shared)).mul_(inverse), d_weight, None, None


def rotation(positions: Tensor, frequencies: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's angles times ``scale``, each [B, T, 1, C/2] float32, from positions [B, T]."""
    angles = positions.float()[..., None, None] * frequencies
    return angles.cos() * scale, angles.sin() * scale


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the channel pairs (i, i + C/2) of ``x`` [B, T, heads, C]: the half-split order of Hugging Face weights."""
    if torch.compiler.is_compiling() or type(x) is not Tensor:
        return _rotated(x, cosine, sine)
    out: Tensor = _Rotation.apply(x, cosine, sine)  # type: ignore[no-untyped-call]
    return out


class _Rotation(torch.autograd.Function):
    """Keeps only cosine and sine: the backward pass rotates the gradient back, at the same scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _rotated(x, cosine, sine)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _rotated(gradient, cosine, -sine), None, None


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    out, half = x.to(torch.float32, copy=True), x.shape[-1] // 2
    first, second, unrotated = out[..., :half], out[..., half:], out[..., :half].clone()
    first.mul_(cosine).addcmul_(second, sine, value=-1)  # in place: half the time of separate products on a CPU
    second.mul_(cosine).addcmul_(unrotated, sine)
    return out.to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention; the caller's ``attend`` computes the attention itself."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_size = layer, config.head_size
        queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
        self.q_proj = nn.Linear(config.dim, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.dim, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.dim, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(queries, config.dim, bias=config.attention_bias)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, attend: Attend) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        q, k, v = (p(x).unflatten(-1, (-1, self.head_size)) for p in (self.q_proj, self.k_proj, self.v_proj))
        out = attend(self.layer, rotate(q, cosine, sine), rotate(k, cosine, sine), v)
        projected: Tensor = self.o_proj(out.flatten(-2))
        return projected


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.ffn_dim, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.dim, config.ffn_dim, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.ffn_dim, config.dim, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """Attention and feed-forward, each after a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim, eps=config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.dim, eps=config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, attend: Attend) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        x = x + self.self_attn(self.input_layernorm(x), cosine, sine, attend)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Body(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.layers))
        self.norm = RMSNorm(config.dim, eps=config.norm_eps)


class Transformer(nn.Module):
    """A Llama-class model: ``forward`` returns hidden states, :meth:`logits` and :meth:`scores` apply the head.

    Weights are uninitialized until :func:`initialize` or a load fills them. On the ``meta`` device they take no memory.
    """

    frequencies: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        if config.head == "score":
            self.score = nn.Linear(config.dim, 1, bias=False)
        else:
            self.lm_head = nn.Linear(config.dim, config.vocab_size, bias=False)
            if config.tied_embeddings:
                self.lm_head.weight = self.model.embed_tokens.weight
        self.register_buffer("frequencies", inverse_frequencies(config), persistent=False)
        self.rotation_scale = rotation_scale(config)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """As in every module, but RoPE's frequencies stay float32: bfloat16 is off by whole turns at far positions."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.frequencies = inverse_frequencies(self.config).to(self.frequencies.device)
        return self

    def set_rope_scaling(self, scaling: RopeScaling) -> None:
        """Set the RoPE scaling; weights do not change."""
        self.config = self.config.model_copy(update={"rope_scaling": scaling})
        self.frequencies = inverse_frequencies(self.config).to(self.frequencies.device)
        self.rotation_scale = rotation_scale(self.config)

    def forward(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Hidden states [B, T, D] after the final norm, from tokens and positions [B, T]."""
        cosine, sine = rotation(positions, self.frequencies, self.rotation_scale)
        x: Tensor = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x, cosine, sine, attend)
        hidden: Tensor = self.model.norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [..., V] from hidden states [..., D]."""
        logits: Tensor = self.lm_head(hidden)
        return logits

    def scores(self, hidden: Tensor) -> Tensor:
        """A reward model's score [...] from hidden states [..., D]."""
        scores: Tensor = self.score(hidden)
        return scores.squeeze(-1)


def build(config: ModelConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Transformer:
    """A model whose weights have memory but no values; fill it before use."""
    with torch.device("meta"):
        model = Transformer(config)
    return materialize(model.to(dtype), device)


def materialize(model: Transformer, device: torch.device | str) -> Transformer:
    """Allocate the weights of a model built on the ``meta`` device, without values, and tie the head again."""
    model = model.to_empty(device=device)
    if model.config.head == "lm" and model.config.tied_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model


@torch.no_grad()
def initialize(
    model: Transformer, seed: int, *, std: float = 0.02, embedding_std: float | None = None, zero_residual: bool = False
) -> None:
    """Fill the weights from ``seed``; norms start at one and biases at zero.

    Each tensor has a random stream of its own, so layouts do not change values.

    Args:
        std: standard deviation of matrices; for those that add to the residual stream, times 1 / sqrt(2 * layers).
        embedding_std: of the embedding and of an untied head; None: ``std``.
        zero_residual: set the matrices that add to the residual stream to zero, so that every layer starts as identity.
    """
    residual_std = 0.0 if zero_residual else std / (2 * model.config.layers) ** 0.5
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(0.0 if name.endswith(".bias") else 1.0)
            continue
        if "embed_tokens" in name or "lm_head" in name:
            spread = std if embedding_std is None else embedding_std
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            spread = residual_std
        elif name == "score.weight":
            spread = 0.0  # a new reward model scores every answer the same
        else:
            spread = std
        generator = torch.Generator().manual_seed(derive_seed(seed, name))
        values = torch.empty(parameter.shape)
        nn.init.trunc_normal_(values, std=1.0, a=-3.0, b=3.0, generator=generator)
        parameter.copy_(values * spread)
