"""Models from and into GGUF, with tokenizer, chat template and stop tokens."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from herdlm import __version__
from herdlm.base.artifact import InputEntry, hash_file, hash_json, publish
from herdlm.base.errors import DamagedError, InputError
from herdlm.model.config import ModelConfig
from herdlm.model.gguf import (
    ARCHITECTURES,
    ROPE_FACTORS,
    gguf_config,
    gguf_name,
    half_split,
    heads_of,
    hf_config,
    hf_name,
    rope_factors,
    side_by_side,
)
from herdlm.model.gguf_file import GgufFile, open_gguf, write_gguf
from herdlm.model.hf import CONFIG, EXPORTS, GENERATION, MAX_SHARD_BYTES, checked_weights, generation_of, read_config
from herdlm.model.hf_config import config_from_hf, config_to_hf
from herdlm.model.transformer import Transformer
from herdlm.model.weights import FETCH_AGAIN, write_json, write_weights
from herdlm.tokens.gguf_export import tokenizer_to_gguf
from herdlm.tokens.gguf_import import tokenizer_from_gguf

INTERLEAVED = ARCHITECTURES[0]  # the architecture in which the rows of q and k are in llama.cpp's order


def import_gguf(path: Path, out: Path, dtype: str = "float32") -> dict[str, Any]:
    """Dequantize a GGUF file into the model artifact ``out``, one tensor at a time.

    Args:
        dtype: type of the stored weights, "float32" (exact for every quantization) or "bfloat16".

    Returns:
        counts: parameters, bytes, dtype.

    Raises:
        InputError: ``out`` exists, or model or tokenizer cannot be represented exactly.
        DamagedError: the file is damaged, or lacks a tensor.
    """
    began = time.monotonic()
    if dtype not in EXPORTS:
        raise InputError(f"dtype {dtype!r} is unknown", f"Use {' or '.join(EXPORTS)}")
    if out.exists():
        raise InputError(f"{out} exists already", "Choose another folder, or remove this one")
    file = open_gguf(path)
    config = config_from_hf(hf_config(file), str(path))
    weights = dict(_weights(file, config))
    tokenizer = tokenizer_from_gguf(file.metadata, str(path), config.vocab_size)
    working = out.with_name(f".{out.name}.partial")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(parents=True)
    try:
        tokenizer.save(working)
        write_json(working / GENERATION, tokenizer.generation)
        tensors = ((name, read().to(EXPORTS[dtype])) for name, read in weights.items())
        size = write_weights(working, tensors, MAX_SHARD_BYTES)
        write_json(working / CONFIG, config_to_hf(config, EXPORTS[dtype], tokenizer.generation))
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        raise
    counts = {"parameters": config.parameters, "bytes": size, "dtype": dtype}
    entry = InputEntry(path=str(path), content=hash_file(path))
    code = {"herdlm": __version__}
    publish(
        working,
        out,
        kind="model",
        stage="import-gguf",
        fingerprint=hash_json([entry.content, dtype, code]),
        inputs={"file": entry},
        recipe={},
        seeds={},
        counts=counts,
        seconds=time.monotonic() - began,
        code=code,
    )
    return counts


def _weights(file: GgufFile, config: ModelConfig) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Name and reader of each parameter of the model, after a check of all names and shapes."""
    expected = _parameters(config)
    stored = {}
    for name, tensor in file.tensors.items():
        known = hf_name(name)
        if known in expected:
            stored[known] = tensor
        elif name != ROPE_FACTORS:
            raise InputError(f"{file.path}: the tensor {name} has no place in the model", "Use a plain Llama or Qwen2")
    permuted = file.metadata["general.architecture"] == INTERLEAVED
    for name, shape in expected.items():
        if name not in stored:
            raise DamagedError(f"{file.path} lacks the tensor {gguf_name(name)}", FETCH_AGAIN)
        tensor = stored[name]
        if tensor.shape != shape:
            raise DamagedError(
                f"{file.path}: {tensor.name} has shape {list(tensor.shape)}, its metadata say {list(shape)}",
                FETCH_AGAIN,
            )
        heads = heads_of(name, config) if permuted else None
        yield name, _reordered(tensor.read, half_split, heads)


def _reordered(
    read: Callable[[], Tensor], order: Callable[[Tensor, int], Tensor], heads: int | None
) -> Callable[[], Tensor]:
    return read if heads is None else lambda: order(read(), heads)


def _parameters(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the stored parameters by name; a tied head is not stored."""
    with torch.device("meta"):
        state = Transformer(config).state_dict()
    if config.tied_embeddings:
        state.pop("lm_head.weight", None)
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def export_gguf(folder: Path, out: Path, type_name: str = "f16") -> dict[str, Any]:
    """Write the model of a Hugging Face folder as a GGUF file, one tensor at a time.

    Args:
        type_name: type of the matrices: "f32", "f16", "bf16" or "q8_0".

    Returns:
        counts: parameters, bytes, type; and notes, what llama.cpp will do otherwise, as sentences.

    Raises:
        InputError: ``out`` exists, or llama.cpp cannot represent model or tokenizer.
        DamagedError: a file is missing or damaged.
    """
    if out.exists():
        raise InputError(f"{out} exists already", "Choose another file, or remove this one")
    config = read_config(folder)
    hf = config_to_hf(config, torch.float32)
    metadata = gguf_config(config, hf)
    with torch.device("meta"):
        model = Transformer(config)
    weights = checked_weights(folder, model)
    tokenizer, notes = tokenizer_to_gguf(folder, config.vocab_size, generation_of(folder) or {})
    permuted = metadata["general.architecture"] == INTERLEAVED
    tensors: list[tuple[str, tuple[int, ...], Callable[[], Tensor]]] = []
    factors = rope_factors(config, hf)
    if factors is not None:
        tensors.append((ROPE_FACTORS, tuple(factors.shape), lambda: factors))
    for name, tensor in weights.items():
        heads = heads_of(name, config) if permuted else None
        tensors.append((gguf_name(name), tensor.shape, _reordered(tensor.read, side_by_side, heads)))
    working = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        other = write_gguf(working, metadata | {"general.name": folder.resolve().name} | tokenizer, tensors, type_name)
        size = working.stat().st_size
        working.rename(out)
    except BaseException:
        working.unlink(missing_ok=True)
        raise
    if other:
        notes.append(f"{len(other)} matrices have rows that {type_name} does not divide; they are stored as F16.")
    return {"parameters": config.parameters, "bytes": size, "type": type_name, "notes": notes}
