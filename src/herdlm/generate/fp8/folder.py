"""Quantizes a folder in bfloat16 or wider to FP8, a few rows at a time, in the ``compressed-tensors`` format.

Memory holds some rows of one matrix, whatever the size of the model: a laptop with enough disk quantizes a 405B model.

Weight scales are rounded up to bfloat16 before the values are rounded, so that a reader that loads scales in bfloat16
computes with exactly these numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from herdlm.base.errors import DamagedError, InputError
from herdlm.generate.fp8.config import STRATEGIES, Fp8Config
from herdlm.model.config import ModelConfig
from herdlm.model.fp8 import FP8, quantize, row_magnitudes, weight_scale
from herdlm.model.hf import CONFIG, MAX_SHARD_BYTES, checked_weights, copy_companions, generation_of, read_config
from herdlm.model.hf_config import config_to_hf
from herdlm.model.streamed_weights import Layout, StreamedWeights
from herdlm.model.transformer import Transformer
from herdlm.model.weights import StoredTensor, write_json

VALUES_AT_ONCE = 2**19  # 2 MB as float32, which stay in the processor's caches


def quantized_names(model: ModelConfig, config: Fp8Config) -> list[str]:
    """The modules of ``model`` that ``config`` turns into FP8, layer by layer.

    Raises:
        InputError: there are none.
    """
    layers, modules = range(config.skip_first_layers, model.layers - config.skip_last_layers), config.modules()
    if not layers:
        raise InputError(
            f"skip_first_layers {config.skip_first_layers} and skip_last_layers {config.skip_last_layers} leave none "
            f"of the model's {model.layers} layers to quantize",
            "Lower skip_first_layers or skip_last_layers",
        )
    if not modules:
        raise InputError("no matrix is to become FP8", "Name matrices of the feed-forward, or set attention")
    return [f"model.layers.{layer}.{module}" for layer in layers for module in modules]


def quantize_folder(
    folder: Path,
    out: Path,
    config: Fp8Config,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write the model in ``folder`` (bfloat16 or wider) to ``out`` as a ``compressed-tensors`` folder.

    A reward model is quantized like a language model; its head stays in bfloat16, as all heads do.

    Args:
        out: created if missing; must not hold weights. config.json is written last.
        progress: called after each write with its number of parameters.

    Returns:
        counts: parameters, parameters_fp8, share_fp8, bytes_before and bytes_after (of the weights only).

    Raises:
        InputError: ``folder`` holds no model, a quantized one, or one with too few layers.
        DamagedError: a file is missing or damaged, or a weight is not finite.
        HerdError: the disk is full.
    """
    model = read_config(folder)
    with torch.device("meta"):
        skeleton = Transformer(model)
    names = quantized_names(model, config)
    weights = checked_weights(folder, skeleton)
    chosen = {f"{name}.weight" for name in names}
    out.mkdir(parents=True, exist_ok=True)
    with StreamedWeights(out, _layouts(weights, chosen, config), max_shard_bytes) as file:
        for name, stored in weights.items():
            for count in _write(file, name, stored, config if name in chosen else None):
                if progress:
                    progress(count)
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
        "bytes_after": file.bytes,
    }


def quantization_config(config: Fp8Config, ignore: list[str]) -> dict[str, Any]:
    """The ``quantization_config`` of config.json, for every linear layer but those in ``ignore``."""
    weights, activations = STRATEGIES[config.granularity]
    fp8 = {"num_bits": 8, "type": "float", "symmetric": True}
    cap = config.activation_cap
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
        "activation_scale_ub": None if cap == float("inf") else cap,
    }


def _layouts(weights: dict[str, StoredTensor], chosen: set[str], config: Fp8Config) -> dict[str, Layout]:
    layouts = {}
    for name, stored in weights.items():
        if name in chosen:
            layouts[name] = Layout(FP8, stored.shape)
            scale = (stored.shape[0], 1) if config.granularity == "row" else (1,)
            layouts[f"{name}_scale"] = Layout(torch.bfloat16, scale)
        else:
            layouts[name] = Layout(torch.bfloat16, stored.shape)
    return layouts


def _write(file: StreamedWeights, name: str, stored: StoredTensor, config: Fp8Config | None) -> Iterator[int]:
    """Write a tensor, in FP8 if there is a ``config``; yields the number of values of each piece."""
    whole = None
    if config and config.granularity == "tensor":
        largest = torch.stack([rows.float().abs().amax() for _, rows in _pieces(stored)]).amax()
        whole = weight_scale(largest.reshape(1))
        file.write(f"{name}_scale", 0, whole.to(torch.bfloat16))
    for first, rows in _pieces(stored):
        if config is None:
            file.write(name, first, _finite(rows.to(torch.bfloat16), stored, first))
        else:
            wide = _finite(rows.float(), stored, first)
            scale = weight_scale(row_magnitudes(wide)) if whole is None else whole
            file.write(name, first, quantize(wide, scale))
            if whole is None:
                file.write(f"{name}_scale", first, scale.to(torch.bfloat16))
        yield rows.numel()


def _pieces(stored: StoredTensor) -> Iterator[tuple[int, Tensor]]:
    """The rows of a tensor in pieces, each with the index of its first row."""
    rows = stored.shape[0]
    step = max(1, VALUES_AT_ONCE * rows // max(stored.count, 1))
    for first in range(0, rows, step):
        yield first, stored.read_rows(first, min(first + step, rows))


def _finite(rows: Tensor, stored: StoredTensor, first: int) -> Tensor:
    """``rows`` unchanged.

    Raises:
        DamagedError: a value is NaN or infinite, maybe only after it was narrowed to bfloat16.
    """
    if not bool(rows.isfinite().all()):
        row = first + int((~rows.isfinite().reshape(rows.shape[0], -1).all(1)).nonzero()[0])
        raise DamagedError(
            f"{stored.path}: {stored.name} holds values in row {row} that are not finite", "Use an earlier checkpoint"
        )
    return rows
