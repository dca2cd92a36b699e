"""Averages the weights of models of one shape, tensor by tensor."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from herdlm import __version__
from herdlm.base.artifact import hash_file, hash_json, publish
from herdlm.base.errors import InputError
from herdlm.base.standalone import input_folder
from herdlm.model.config import ModelConfig
from herdlm.model.hf import EXPORTS, MAX_SHARD_BYTES, checked_weights, copy_companions, generation_of, read_config
from herdlm.model.hf_config import config_to_hf
from herdlm.model.transformer import Transformer
from herdlm.model.weights import StoredTensor, write_json, write_weights


def average_folders(
    folders: Sequence[Path], out: Path, *, weights: Sequence[float] | None = None, dtype: str = "float32"
) -> dict[str, Any]:
    """Write the weighted mean of the models in ``folders`` as the folder ``out``, in "float32" or "bfloat16".

    One tensor of each model is in memory at a time. The mean is computed in float64. Tokenizer, chat template and
    generation settings are those of the first folder.

    Args:
        weights: one for each folder, of any positive sum; default: all the same.

    Returns:
        counts: models, parameters, bytes, dtype.

    Raises:
        InputError: ``out`` exists; there are fewer than two models; weights or dtype are wrong; or the models differ in
            shape or tokenizer.
        DamagedError: a file is missing or damaged.
    """
    if dtype not in EXPORTS:
        raise InputError(f"dtype {dtype!r} is unknown", f"Use {' or '.join(EXPORTS)}")
    if out.exists():
        raise InputError(f"{out} exists already", "Choose another folder, or remove this one")
    began, shares = time.monotonic(), _shares(folders, weights)
    inputs = {f"model-{number}": input_folder(folder) for number, folder in enumerate(folders, 1)}
    config = _common_config(folders)
    with torch.device("meta"):
        shape = Transformer(config)
    opened = [checked_weights(folder, shape) for folder in folders]
    narrow = next((t for each in opened for t in each.values() if t.dtype.itemsize == 1), None)
    if narrow is not None:
        raise InputError(f"{narrow.path} holds FP8 weights", "Average the models that were quantized")
    working = out.with_name(f".{out.name}.partial")
    shutil.rmtree(working, ignore_errors=True)
    try:
        working.mkdir(parents=True)
        size = write_weights(working, _means(opened, shares, EXPORTS[dtype]), MAX_SHARD_BYTES)
        copy_companions(folders[0], working)
        write_json(working / "config.json", config_to_hf(config, EXPORTS[dtype], generation_of(folders[0])))
        publish(
            working,
            out,
            kind="model",
            stage="average",
            fingerprint=hash_json([shares, dtype, [entry.content for entry in inputs.values()]]),
            inputs=inputs,
            recipe={"shares": shares, "dtype": dtype},
            seeds={},
            counts={"models": len(folders), "parameters": config.parameters},
            seconds=time.monotonic() - began,
            code={"herdlm": __version__},
        )
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        raise
    return {"models": len(folders), "parameters": config.parameters, "bytes": size, "dtype": dtype}


def _shares(folders: Sequence[Path], weights: Sequence[float] | None) -> list[float]:
    if len(folders) < 2:
        raise InputError(f"an average needs two models or more, not {len(folders)}", "Name several folders")
    given = [1.0] * len(folders) if weights is None else list(weights)
    if len(given) != len(folders):
        raise InputError(f"{len(given)} weights for {len(folders)} models", "Give one weight for each")
    if not (all(0 <= weight < float("inf") for weight in given) and sum(given) > 0):
        raise InputError(f"the weights {given} cannot be used", "Give numbers from 0 on with a positive sum")
    return [weight / sum(given) for weight in given]


def _common_config(folders: Sequence[Path]) -> ModelConfig:
    """The shape of all models.

    Raises:
        InputError: two differ in shape or in a file of the tokenizer.
    """
    first = read_config(folders[0])
    for folder in folders[1:]:
        here, there = first.model_dump(), read_config(folder).model_dump()
        differing = [key for key in here if here[key] != there[key]]
        if differing:
            shown = ", ".join(f"{key} {here[key]} and {there[key]}" for key in differing)
            raise InputError(f"{folders[0]} and {folder} differ in {shown}", "Average models of one shape")
        one, two = (path / "tokenizer.json" for path in (folders[0], folder))
        if (hash_file(one) if one.is_file() else None) != (hash_file(two) if two.is_file() else None):
            raise InputError(f"{one} and {two} differ", "Average models of one tokenizer")
    return first


def _means(
    opened: Sequence[dict[str, StoredTensor]], shares: Sequence[float], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    for name in opened[0]:
        mean = torch.zeros(opened[0][name].shape, dtype=torch.float64)
        for weights, share in zip(opened, shares, strict=True):
            mean += share * weights[name].read().double()
        yield name, mean.to(dtype)
