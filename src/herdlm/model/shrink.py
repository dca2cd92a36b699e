"""Makes a smaller model from a larger one by keeping some of its layers; all other weights stay as they are.

Such a model begins far above the loss of the larger one and needs training, best with the larger one as its teacher.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from herdlm.base.errors import InputError
from herdlm.base.standalone import input_folder, standalone
from herdlm.model.hf import (
    EXPORTS,
    MAX_SHARD_BYTES,
    checked_weights,
    copy_companions,
    generation_of,
    read_config,
    widest,
)
from herdlm.model.hf_config import config_to_hf
from herdlm.model.kept_layers import check_kept
from herdlm.model.transformer import Transformer
from herdlm.model.weights import StoredTensor, write_json, write_weights

LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def shrink(
    folder: Path, out: Path, keep: Sequence[int], *, dtype: str | None = None, influence: Sequence[float] | None = None
) -> dict[str, Any]:
    """Publish the model artifact ``out``: that of ``folder`` with the layers ``keep`` alone, see :func:`shrink_into`.

    Args:
        influence: of each layer of the larger model, for the manifest, where the choice was made by it.

    Raises:
        InputError: ``out`` exists; see also :func:`shrink_into`.
    """
    settings: dict[str, Any] = {"keep": list(keep), "dtype": dtype}
    inputs = {"model": input_folder(folder)}
    with standalone(out, kind="model", name="shrink", settings=settings, inputs=inputs, seed=0) as (made, _, counts):
        counts.update(shrink_into(folder, made, keep, dtype=dtype))
        if influence is not None:
            counts["influence"] = [round(value, 6) for value in influence]
    return counts


def shrink_into(folder: Path, out: Path, keep: Sequence[int], *, dtype: str | None = None) -> dict[str, Any]:
    """Write the model of ``folder`` with the layers ``keep`` alone, numbered anew, into the folder ``out``.

    Tensors are copied one at a time. Tokenizer, chat template and generation settings are those of ``folder``.

    Args:
        dtype: "bfloat16" or "float32"; None: the narrowest of these and float64 that loses nothing.

    Returns:
        counts: parameters before and after, the layers kept, bytes, dtype.

    Raises:
        InputError: the model cannot be read or is quantized, or it has no such layers.
        DamagedError: a file is missing or damaged.
    """
    if dtype is not None and dtype not in EXPORTS:
        raise InputError(f"dtype {dtype!r} is unknown", f"Use {' or '.join(EXPORTS)}")
    config = read_config(folder)
    kept = check_kept(config.layers, keep)
    smaller = config.model_copy(update={"layers": len(kept)})
    with torch.device("meta"):
        weights = checked_weights(folder, Transformer(config))
    saved = widest(weights) if dtype is None else EXPORTS[dtype]
    out.mkdir(parents=True, exist_ok=True)
    size = write_weights(out, _kept_tensors(weights, kept, saved), MAX_SHARD_BYTES)
    copy_companions(folder, out)
    write_json(out / "config.json", config_to_hf(smaller, saved, generation_of(folder)))
    return {
        "parameters": smaller.parameters,
        "parameters_before": config.parameters,
        "layers": list(kept),
        "layers_before": config.layers,
        "bytes": size,
        "dtype": str(saved).removeprefix("torch."),
    }


def _kept_tensors(
    weights: dict[str, StoredTensor], kept: Sequence[int], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the smaller model by its names."""
    places = {layer: place for place, layer in enumerate(kept)}
    for name, tensor in weights.items():
        found = LAYER.fullmatch(name)
        if found is None:
            yield name, tensor.read().to(dtype)
        elif (place := places.get(int(found[1]))) is not None:
            yield f"model.layers.{place}.{found[2]}", tensor.read().to(dtype)
