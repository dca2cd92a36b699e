"""The rates of RoPE (Su et al., arXiv 2104.09864) and their scalings for long contexts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from herdlm.model.config import ModelConfig, RopeScaling


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """The rotation rate of each channel pair, scaled, in radians per position, [C/2] float32."""
    exponents = torch.arange(0, config.head_size, 2, dtype=torch.int64).float() / config.head_size
    frequencies = 1.0 / (config.rope_theta**exponents)
    scaling = config.rope_scaling
    if scaling is None or scaling.rope_type == "dynamic":  # which changes nothing up to max_seq_len
        return frequencies
    if scaling.rope_type == "linear":
        return frequencies / scaling.factor
    keep = _kept_llama3(frequencies, scaling) if scaling.rope_type == "llama3" else _kept_yarn(config, scaling)
    return frequencies * (keep + (1 - keep) / scaling.factor)


def rotation_scale(config: ModelConfig) -> float:
    """What queries and keys are multiplied by as they are rotated: YaRN's attention factor, 1 otherwise."""
    scaling = config.rope_scaling
    if scaling is None or scaling.rope_type != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return _magnitude(scaling.factor, scaling.mscale) / _magnitude(scaling.factor, scaling.mscale_all_dim)
    return _magnitude(scaling.factor, 1.0)


def _magnitude(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _kept_llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """By pair, the share of its rate that Llama 3.1's scaling keeps; the rest is slowed by ``factor``.

    Pairs with wavelengths above ``original / low_freq_factor`` are slowed, those below ``original / high_freq_factor``
    not at all, those between by a blend of both.
    """
    wavelengths = 2 * math.pi / frequencies
    span = scaling.high_freq_factor - scaling.low_freq_factor
    return ((scaling.original_max_position_embeddings / wavelengths - scaling.low_freq_factor) / span).clamp(0, 1)


def _kept_yarn(config: ModelConfig, scaling: RopeScaling) -> Tensor:
    """By pair, the share of its rate that YaRN (Peng et al., arXiv 2309.00071) keeps.

    Pairs that turn more than ``beta_fast`` times in the original context keep all of it, those that turn less than
    ``beta_slow`` times nothing, with a ramp between. ``truncate`` widens the ramp to whole pairs.
    """

    def pair_that_turns(times: float) -> float:
        wavelength = scaling.original_max_position_embeddings / times
        return config.head_size * math.log(wavelength / (2 * math.pi)) / (2 * math.log(config.rope_theta))

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.head_size - 1)
    span = high - low or 0.001
    return 1 - ((torch.arange(config.head_size // 2, dtype=torch.float32) - low) / span).clamp(0, 1)
