"""Reading FP8 models from ``compressed-tensors`` folders, ours or another tool's.

The layout is "float-quantized": ``NAME.weight`` in F8_E4M3, ``NAME.weight_scale`` in bfloat16, [out, 1] ([1] with one
scale per tensor), everything else in bfloat16. The format has no place for the cap on activations; it is an extra key
(``activation_scale_ub``) that other readers ignore, so they differ from us on just those tokens that exceed it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, Field, model_validator
from torch import nn

from herdlm.base.errors import InputError
from herdlm.base.recipe import parse
from herdlm.generate.fp8.config import STRATEGIES, Granularity
from herdlm.generate.fp8.linear import Fp8Linear
from herdlm.model.config import ModelConfig
from herdlm.model.hf import CONFIG, checked_weights, fill
from herdlm.model.hf_config import config_from_hf
from herdlm.model.transformer import Transformer, materialize
from herdlm.model.weights import read_json


def is_fp8(folder: Path) -> bool:
    """Whether the model in ``folder`` is quantized; :func:`load_fp8` reads it then, else ``load_folder``."""
    return read_json(folder / CONFIG).get("quantization_config") is not None


def shape_of(folder: Path) -> ModelConfig:
    """The shape of the model in ``folder``, quantized or not.

    Raises:
        InputError: there is no model, or one that cannot be represented exactly.
        DamagedError: its config.json cannot be read.
    """
    settings = read_json(folder / CONFIG)
    settings.pop("quantization_config", None)
    return config_from_hf(settings, str(folder / CONFIG))


class _WeightArguments(BaseModel):
    num_bits: Literal[8]
    type: Literal["float"]
    symmetric: Literal[True] = True
    strategy: Literal["channel", "tensor"]
    dynamic: Literal[False] = False


class _ActivationArguments(BaseModel):
    num_bits: Literal[8]
    type: Literal["float"]
    symmetric: Literal[True] = True
    strategy: Literal["token", "tensor"]
    dynamic: Literal[True]


class _Group(BaseModel):
    targets: tuple[Literal["Linear"]]
    weights: _WeightArguments
    input_activations: _ActivationArguments
    output_activations: None = None


class _Scheme(BaseModel):
    """The ``quantization_config`` of a folder; keys that change no number are ignored."""

    quant_method: Literal["compressed-tensors"]
    format: Literal["float-quantized"]
    kv_cache_scheme: None = None
    config_groups: dict[str, _Group] = Field(min_length=1, max_length=1)
    ignore: tuple[str, ...] = ()
    activation_scale_ub: float | None = Field(None, gt=0)

    @property
    def granularity(self) -> Granularity:
        """The granularity of both sides' scales.

        Raises:
            ValueError: the sides are scaled differently.
        """
        group = next(iter(self.config_groups.values()))
        strategies = (group.weights.strategy, group.input_activations.strategy)
        for granularity, known in STRATEGIES.items():
            if known == strategies:
                return granularity
        raise ValueError(
            f"weights scaled per {strategies[0]} with activations scaled per {strategies[1]} are not supported"
        )

    @model_validator(mode="after")
    def _sides_fit(self) -> _Scheme:
        _ = self.granularity
        return self

    def ignores(self, name: str) -> bool:
        """Whether the module ``name`` is not quantized; rules are names, or patterns that start with ``re:``."""
        return any(re.match(rule[3:], name) if rule.startswith("re:") else rule == name for rule in self.ignore)


@torch.no_grad()
def load_fp8(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16) -> Transformer:
    """The model in a ``compressed-tensors`` FP8 folder, ours or another tool's, for inference.

    Args:
        dtype: of the activations and of the weights that are not FP8.

    Raises:
        InputError: the folder's scheme is not FP8 with dynamic activations; the message names the key.
        DamagedError: a file is missing or damaged, or its tensors do not match config.json.
    """
    settings = read_json(folder / CONFIG)
    where = str(folder / CONFIG)
    quantization = settings.pop("quantization_config", None)
    if not isinstance(quantization, dict):
        raise InputError(f"{where}: the model is not quantized", "Load it with load_folder")
    scheme = parse(_Scheme, quantization, f"{where}, quantization_config")
    model = _skeleton(config_from_hf(settings, where)).to(dtype)
    dense = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    with torch.device("meta"):
        for name, linear in dense:
            if not scheme.ignores(name):
                new = Fp8Linear(
                    linear.in_features,
                    linear.out_features,
                    scheme.granularity,
                    scheme.activation_scale_ub or math.inf,
                    bias=linear.bias is not None,
                )
                model.set_submodule(name, new.to(dtype))
    weights = checked_weights(folder, model)
    model = materialize(model, device)
    fill(model, weights)
    return model.requires_grad_(False)


def _skeleton(config: ModelConfig) -> Transformer:
    with torch.device("meta"):
        return Transformer(config)
