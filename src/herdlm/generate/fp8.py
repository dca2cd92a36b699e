"""Row-wise FP8 for the large matrix products, kept in folders that transformers and vLLM read too.

The rules are the Llama 3 report's (section 6.2): the matrix products of the feed-forward only, the first and the last
layer left alone, one scale per output channel of a weight (fixed) and per token of an activation (taken from the token
itself as it comes).

**Numbers.** A tensor is ``values * scale`` with values in e4m3 (largest 448, three mantissa bits) and
``scale = largest magnitude / 448`` of its row. Weight scales are rounded up to bfloat16 before the values are taken, so
that a reader that loads them in bfloat16 computes with exactly the numbers written here.

**The cap.** The report bounds dynamic scales from above by 1,200, because rare tokens with huge activations otherwise
get a scale so coarse that their small values vanish. The bound acts on the magnitude that enters the scale, as in the
kernels and the released FP8 checkpoints (``activation_scale_ub``): ``scale = min(largest magnitude, 1200) / 448``, and
what lies beyond +-1,200 saturates there. A bound on the quotient itself would first act at a magnitude of 537,600. The
``compressed-tensors`` format has no place for the cap; it is written as an extra key that other readers pass over, so
they differ from us on just those tokens that exceed it.

**Files.** ``compressed-tensors`` layout "float-quantized": ``NAME.weight`` in F8_E4M3, ``NAME.weight_scale`` in
bfloat16, [out, 1] ([1] with one scale per tensor), everything else in bfloat16.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from herdlm.base.errors import InputError
from herdlm.base.recipe import parse
from herdlm.generate.fp8_config import Fp8Config, Granularity
from herdlm.model.config import ModelConfig
from herdlm.model.hf import (
    CONFIG,
    MAX_SHARD_BYTES,
    checked_weights,
    config_from_hf,
    config_to_hf,
    copy_companions,
    fill,
    generation_of,
    read_config,
)
from herdlm.model.transformer import Transformer, materialise
from herdlm.model.weights import StoredTensor, read_json, write_json, write_weights

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
FFN = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")

STRATEGIES: dict[Granularity, tuple[str, str]] = {"row": ("channel", "token"), "tensor": ("tensor", "tensor")}


def quantized_names(model: ModelConfig, config: Fp8Config) -> list[str]:
    """The modules of ``model`` that ``config`` turns into FP8, layer by layer.

    Raises:
        InputError: every layer is skipped.
    """
    layers = range(config.skip_first_layers, model.layers - config.skip_last_layers)
    if not layers:
        raise InputError(
            f"skip_first_layers {config.skip_first_layers} and skip_last_layers {config.skip_last_layers} leave none "
            f"of the model's {model.layers} layers to quantise",
            "Skip fewer layers",
        )
    matrices = FFN if config.matrices == "ffn" else ATTENTION + FFN
    return [f"model.layers.{layer}.{matrix}" for layer in layers for matrix in matrices]


def quantize_weight(weight: Tensor, granularity: Granularity) -> tuple[Tensor, Tensor]:
    """Values [out, in] in FP8 and their scale, [out, 1] or [1] float32 but exact in bfloat16, of a weight [out, in]."""
    weight = weight.float()
    largest = weight.abs().amax(-1, keepdim=True) if granularity == "row" else weight.abs().amax().reshape(1)
    scale = _up_to_bfloat16(largest / FP8_MAX)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (weight / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale


def quantize_activation(x: Tensor, granularity: Granularity, cap: float) -> tuple[Tensor, Tensor]:
    """Values [N, in] in FP8 and their scale, [N, 1] or [1] float32, of activations [N, in].

    ``cap`` is the largest magnitude that enters a scale; ``math.inf`` for none.
    """
    x = x.float()
    largest = x.abs().amax(-1, keepdim=True) if granularity == "row" else x.abs().amax().reshape(1)
    scale = largest.clamp(max=cap) / FP8_MAX
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (x / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale


def _up_to_bfloat16(x: Tensor) -> Tensor:
    """The least bfloat16 value that is not below ``x`` (float32, not negative), as float32."""
    return ((x.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)


class Fp8Linear(nn.Module):
    """A linear map without bias whose weight is FP8 and whose input is rounded to FP8 as it comes.

    One of two backends is chosen for the device and type of the first input:

    - "scaled_mm": CUDA of compute capability 9.0 and up, bfloat16, sizes that are multiples of 16. The GPU multiplies
      FP8 by FP8.
    - "dense": everything else. The FP8 values of the weight are kept once more as bfloat16 or float32, in which they
      are exact; both scales are applied after the product. The numbers are those of "scaled_mm" up to rounding of sums.
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, inputs: int, outputs: int, granularity: Granularity, cap: float) -> None:
        super().__init__()
        self.granularity, self.cap = granularity, cap
        self.register_buffer("weight", torch.empty(outputs, inputs, dtype=FP8))
        self.register_buffer("weight_scale", torch.empty((outputs, 1) if granularity == "row" else (1,)))
        self.backend: str | None = None
        self._chosen_for: tuple[torch.device, torch.dtype] | None = None
        self._dense: Tensor | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Moves weight and scale as bits, so that a change of type of the whole model leaves both as they are."""
        self.weight = fn(self.weight.view(torch.uint8)).view(FP8)
        self.weight_scale = fn(self.weight_scale.view(torch.int32)).view(torch.float32)
        self._chosen_for = None
        return self

    def _choose(self, device: torch.device, dtype: torch.dtype) -> None:
        sizes_fit = all(size % 16 == 0 for size in self.weight.shape)
        hopper = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
        self.backend = "scaled_mm" if hopper and sizes_fit and dtype == torch.bfloat16 else "dense"
        exact = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
        self._dense = self.weight.to(exact) if self.backend == "dense" else None
        self._chosen_for = (device, dtype)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], without gradient."""
        if self._chosen_for != (x.device, x.dtype):
            self._choose(x.device, x.dtype)
        outputs, inputs = self.weight.shape
        rows = x.reshape(-1, inputs)
        if rows.shape[0] == 0:
            return x.new_empty(*x.shape[:-1], outputs)
        values, scale = quantize_activation(rows, self.granularity, self.cap)
        if self._dense is None:
            out = torch._scaled_mm(
                values, self.weight.t(), scale_a=scale, scale_b=self.weight_scale.t(), out_dtype=x.dtype
            )
        else:
            product = F.linear(values.to(self._dense.dtype), self._dense)
            out = (product * scale * self.weight_scale.t()).to(x.dtype)
        return out.reshape(*x.shape[:-1], outputs)


def quantize_folder(folder: Path, out: Path, config: Fp8Config) -> dict[str, Any]:
    """Write the model in ``folder`` (bfloat16 or wider) to ``out`` as a ``compressed-tensors`` folder.

    Args:
        out: made if it is not there; must hold no weights yet. config.json is written last.

    Returns:
        counts: parameters, parameters_fp8, share_fp8, bytes_before and bytes_after (of the weights alone).

    Raises:
        InputError: ``folder`` holds no model, one that is quantised already, or one with too few layers.
        DamagedError: a file is missing or damaged.
        HerdError: the disk is full.
    """
    model = read_config(folder)
    skeleton = _skeleton(model)
    names = quantized_names(model, config)
    weights = checked_weights(folder, skeleton)
    chosen = {f"{name}.weight" for name in names}
    out.mkdir(parents=True, exist_ok=True)
    after = write_weights(out, _quantised(weights, chosen, config.granularity), MAX_SHARD_BYTES)
    copy_companions(folder, out)
    linear = {name for name, module in skeleton.named_modules() if isinstance(module, nn.Linear)}
    settings = config_to_hf(model, torch.bfloat16, generation_of(folder))
    settings["quantization_config"] = quantization_config(config, sorted(linear - set(names)))
    write_json(out / CONFIG, settings)
    in_fp8 = sum(weights[name].count for name in chosen)
    return {
        "parameters": model.parameters,
        "parameters_fp8": in_fp8,
        "share_fp8": in_fp8 / model.parameters,
        "bytes_before": sum(tensor.count * tensor.dtype.itemsize for tensor in weights.values()),
        "bytes_after": after,
    }


def _quantised(
    weights: dict[str, StoredTensor], chosen: set[str], granularity: Granularity
) -> Iterator[tuple[str, Tensor]]:
    for name, stored in weights.items():
        if name not in chosen:
            yield name, stored.read().to(torch.bfloat16)
            continue
        values, scale = quantize_weight(stored.read(), granularity)
        yield name, values
        yield f"{name}_scale", scale.to(torch.bfloat16)


def quantization_config(config: Fp8Config, ignore: list[str]) -> dict[str, Any]:
    """The ``quantization_config`` of config.json: every linear map but those in ``ignore``, by ``config``'s scales."""
    weights, activations = STRATEGIES[config.granularity]
    fp8 = {"num_bits": 8, "type": "float", "symmetric": True}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**fp8, "strategy": weights, "dynamic": False},
                "input_activations": {**fp8, "strategy": activations, "dynamic": True},
                "output_activations": None,
            }
        },
        "ignore": ignore,
        "activation_scale_ub": config.activation_cap,
    }


def is_fp8(folder: Path) -> bool:
    """Whether the model in ``folder`` is quantised, so that :func:`load_fp8` reads it rather than ``load_folder``."""
    return read_json(folder / CONFIG).get("quantization_config") is not None


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
    """The ``quantization_config`` of a folder, as far as it can be read; keys that change no number are passed over."""

    quant_method: Literal["compressed-tensors"]
    format: Literal["float-quantized"]
    kv_cache_scheme: None = None
    config_groups: dict[str, _Group] = Field(min_length=1, max_length=1)
    ignore: tuple[str, ...] = ()
    activation_scale_ub: float | None = Field(None, gt=0)

    @property
    def granularity(self) -> Granularity:
        """How both sides are scaled.

        Raises:
            ValueError: each side differently.
        """
        group = next(iter(self.config_groups.values()))
        strategies = (group.weights.strategy, group.input_activations.strategy)
        for granularity, known in STRATEGIES.items():
            if known == strategies:
                return granularity
        raise ValueError(
            f"weights scaled per {strategies[0]} with activations scaled per {strategies[1]} are not known"
        )

    @model_validator(mode="after")
    def _sides_fit(self) -> _Scheme:
        _ = self.granularity
        return self

    def ignores(self, name: str) -> bool:
        """Whether the module ``name`` is left as it is; rules are names, or patterns behind ``re:``."""
        return any(re.match(rule[3:], name) if rule.startswith("re:") else rule == name for rule in self.ignore)


@torch.no_grad()
def load_fp8(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16) -> Transformer:
    """The model in a ``compressed-tensors`` FP8 folder, ours or another tool's, for inference.

    Args:
        dtype: of the activations and of the weights that are not FP8.

    Raises:
        InputError: the folder's scheme is another one than FP8 with dynamic activations; the key is named.
        DamagedError: a file is missing or damaged, or its tensors are not what config.json says.
    """
    settings = read_json(folder / CONFIG)
    where = str(folder / CONFIG)
    quantization = settings.pop("quantization_config", None)
    if not isinstance(quantization, dict):
        raise InputError(f"{where}: the model is not quantised", "Load it as an ordinary folder")
    scheme = parse(_Scheme, quantization, f"{where}, quantization_config")
    model = _skeleton(config_from_hf(settings, where)).to(dtype)
    dense = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    with torch.device("meta"):
        for name, linear in dense:
            if not scheme.ignores(name):
                new = Fp8Linear(
                    linear.in_features, linear.out_features, scheme.granularity, scheme.activation_scale_ub or math.inf
                )
                model.set_submodule(name, new)
    weights = checked_weights(folder, model)
    model = materialise(model, device)
    fill(model, weights)
    return model.requires_grad_(False)


def _skeleton(config: ModelConfig) -> Transformer:
    with torch.device("meta"):
        return Transformer(config)
