"""Rotary position embedding (Su et al., arXiv 2104.09864) with Llama 3.1's frequency scaling."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from herdlm.model.config import ModelConfig, RopeScaling


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """The turning rate of each channel pair in radians per position, [C/2] float32."""
    exponents = torch.arange(0, config.head_size, 2, dtype=torch.int64).float() / config.head_size
    frequencies = 1.0 / (config.rope_theta**exponents)
    return scale_frequencies(frequencies, config.rope_scaling) if config.rope_scaling else frequencies


def scale_frequencies(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Slow the pairs that turn less than once per original context, keep the fast ones, blend between.

    A pair whose wavelength is above ``original / low_freq_factor`` is slowed by ``factor``; one below
    ``original / high_freq_factor`` is left as it is.
    """
    original = scaling.original_max_position_embeddings
    wavelengths = 2 * math.pi / frequencies
    span = scaling.high_freq_factor - scaling.low_freq_factor
    keep = ((original / wavelengths - scaling.low_freq_factor) / span).clamp(0, 1)
    return frequencies * (keep + (1 - keep) / scaling.factor)


def rotation(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's angles, each [B, T, 1, C/2] float32, from positions [B, T]."""
    angles = positions.float()[..., None, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn the channel pairs (i, i + C/2) of ``x`` [B, T, heads, C]; the half-split order of Hugging Face weights."""
    if torch.compiler.is_compiling() or type(x) is not Tensor:
        return _turned(x, cosine, sine)
    out: Tensor = _Rotation.apply(x, cosine, sine)  # type: ignore[no-untyped-call]
    return out


class _Rotation(torch.autograd.Function):
    """Keeps nothing but the angles: the gradient is turned back by the same angles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _turned(x, cosine, sine)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _turned(gradient, cosine, -sine), None, None


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1).to(x.dtype)
