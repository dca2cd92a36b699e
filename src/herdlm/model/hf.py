"""Reads and writes Hugging Face folders of Llama, Mistral and Qwen2 without the transformers library.

A folder holds config.json, safetensors weights, and settings of tokenizer and generation. Parameters have the
Transformer's names, so only the configuration is translated (:mod:`herdlm.model.hf_config`).

config.json is written last: a folder without it is not a model.
"""

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
from herdlm.base.json_files import as_object, read_bounded
from herdlm.model.config import ModelConfig
from herdlm.model.hf_config import TOKEN_IDS, config_from_hf, config_to_hf
from herdlm.model.transformer import Transformer, build
from herdlm.model.weights import FETCH_AGAIN, StoredTensor, open_weights, read_json, write_json, write_weights

CONFIG = "config.json"
GENERATION = "generation_config.json"
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    GENERATION,
)
COMPANION_BYTES = 256 * 2**20
MAX_SHARD_BYTES = 5_000_000_000
EXPORTS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def read_config(folder: Path) -> ModelConfig:
    """The shape of the model in ``folder``, FP8 folders excepted.

    Raises:
        InputError: the folder does not exist, or its model cannot be represented exactly.
        DamagedError: its config.json cannot be read.
    """
    return config_from_hf(read_json(folder / CONFIG), str(folder / CONFIG))


def checked_weights(folder: Path, model: Transformer) -> dict[str, StoredTensor]:
    """The stored tensor of each entry of ``model``'s state (which may be on the ``meta`` device), in its order.

    Of a tied pair, either may be missing; if both are stored, they must be equal. Stored RoPE frequencies are ignored,
    since the configuration determines them.

    Raises:
        DamagedError: a tensor is missing, unexpected, or of another shape or kind; or a file is damaged.
        InputError: there are no safetensors files.
    """
    stored = {name: t for name, t in open_weights(folder).items() if not name.endswith(".rotary_emb.inv_freq")}
    expected = model.state_dict()
    if model.config.tied_embeddings and "lm_head.weight" in expected:
        del expected["lm_head.weight"]
        head = stored.pop("lm_head.weight", None)
        embedding = stored.setdefault("model.embed_tokens.weight", head) if head else None
        if head and embedding and head is not embedding and not torch.equal(head.read(), embedding.read()):
            raise InputError(
                f"{head.path}: lm_head.weight differs from the embedding although tie_word_embeddings is true",
                "Set tie_word_embeddings to false in config.json if the head is its own",
            )
    for name, tensor in expected.items():
        if name not in stored:
            raise DamagedError(f"{folder} lacks the tensor {name}", FETCH_AGAIN)
        found = stored[name]
        if found.shape != tuple(tensor.shape):
            raise DamagedError(
                f"{found.path}: {name} has shape {list(found.shape)}, config.json says {list(tensor.shape)}",
                FETCH_AGAIN,
            )
        if (found.dtype.itemsize == 1) != (tensor.dtype.itemsize == 1):
            raise DamagedError(
                f"{found.path}: {name} is stored as {found.dtype}, which config.json does not state", FETCH_AGAIN
            )
    surplus = next((t for name, t in stored.items() if name not in expected), None)
    if surplus is not None:
        raise DamagedError(
            f"{surplus.path}: the tensor {surplus.name} has no place in the model of config.json", FETCH_AGAIN
        )
    return {name: stored[name] for name in expected}


def _shape_only(config: ModelConfig) -> Transformer:
    with torch.device("meta"):
        return Transformer(config)


def widest(weights: dict[str, StoredTensor]) -> torch.dtype:
    """The narrowest of bfloat16, float32 and float64 that holds every stored value exactly."""
    widest = torch.bfloat16 if all(t.dtype == torch.bfloat16 for t in weights.values()) else torch.float32
    return torch.float64 if any(t.dtype == torch.float64 for t in weights.values()) else widest


@torch.no_grad()
def load_folder(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Transformer:
    """Load the model in ``folder``, in ``dtype``; None: the narrowest type from bfloat16 up that loses nothing.

    Raises:
        InputError, DamagedError: see :func:`read_config` and :func:`checked_weights`.
    """
    config = read_config(folder)
    weights = checked_weights(folder, _shape_only(config))
    model = build(config, device, dtype or widest(weights))
    fill(model, weights)
    return model


def load_for_training(folder: Path, device: torch.device | str = "cpu") -> Transformer:
    """Load the model in ``folder`` in FP32, whatever type it is stored in: training needs the precision.

    Raises:
        InputError, DamagedError: see :func:`load_folder`.
    """
    return load_folder(folder, device, torch.float32)


@torch.no_grad()
def fill(model: Transformer, weights: dict[str, StoredTensor]) -> None:
    """Copy stored values into an allocated model."""
    state = model.state_dict()
    for name, tensor in weights.items():
        state[name].copy_(tensor.read())


def save_folder(
    model: Transformer,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    generation: dict[str, Any] | None = None,
) -> None:
    """Write ``model`` as a Hugging Face folder; the same model gives the same bytes.

    Args:
        folder: created if missing; must not hold weights.
        generation: the content of generation_config.json (bos_token_id, eos_token_id, sampling defaults, ...); its
            token ids are also written to config.json.

    Raises:
        InputError: the folder holds weights, or the model holds FP8 ones.
        HerdError: the disk is full.
    """
    state = model.state_dict()
    if model.config.tied_embeddings:
        state.pop("lm_head.weight", None)
    if any(name.endswith(".lora_a") for name in state):
        raise InputError("a model with LoRA adapters is no plain folder", "Merge them first: model.lora.merge_lora")
    if any(tensor.dtype.itemsize == 1 for tensor in state.values()):
        raise InputError(
            "a model with FP8 weights cannot be saved in another type", "Save the model from which it was quantized"
        )
    _write(
        folder,
        ((n, t.to(dtype)) for n, t in state.items()),
        model.config,
        dtype,
        max_shard_bytes=max_shard_bytes,
        generation=generation,
    )


def _write(
    folder: Path,
    tensors: Iterator[tuple[str, Tensor]],
    config: ModelConfig,
    dtype: torch.dtype,
    *,
    max_shard_bytes: int,
    generation: dict[str, Any] | None,
) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    size = write_weights(folder, tensors, max_shard_bytes)
    if generation is not None:
        write_json(folder / GENERATION, generation)
    write_json(folder / CONFIG, config_to_hf(config, dtype, generation))
    return size


def copy_companions(folder: Path, out: Path) -> list[str]:
    """Copy the tokenizer, chat template and generation settings that ``folder`` has; returns their names.

    Raises:
        DamagedError: one of them is not valid JSON.
    """
    present = [name for name in COMPANIONS if (folder / name).is_file()]
    for name in present:
        data = read_bounded(folder / name, FETCH_AGAIN, most=COMPANION_BYTES)
        if name.endswith(".json"):
            as_object(data, folder / name, FETCH_AGAIN, encoding="utf-8-sig")
        (out / name).write_bytes(data)
    return present


def refuse_outside_links(folder: Path) -> None:
    """Refuse a folder to be imported whose files are links that lead elsewhere, such as to a file of secrets.

    The cache of Hugging Face's own tools is the exception: its ``snapshots/COMMIT`` link to ``blobs`` beside them.

    Raises:
        InputError: one leads out of the folder.
    """
    if not folder.is_dir():
        return
    home = folder.resolve()
    homes = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not any(path.resolve().is_relative_to(inside) for inside in homes):
            raise InputError(f"{path} is a link to {path.resolve()}, outside of {folder}", "Copy the file in its place")


def generation_of(folder: Path) -> dict[str, Any] | None:
    """A folder's generation settings or, without such a file, the token ids of its config.json, if any."""
    if (folder / GENERATION).is_file():
        return read_json(folder / GENERATION)
    config = read_json(folder / CONFIG)
    ids = {key: config[key] for key in TOKEN_IDS if config.get(key) is not None}
    return ids or None


def import_hf(folder: Path, out: Path) -> dict[str, Any]:
    """Check a Hugging Face folder and copy it, normalized and without loss, into the model artifact ``out``.

    Returns:
        counts: parameters, bytes, dtype.

    Raises:
        InputError: ``out`` exists, or ``folder`` holds no model that can be represented exactly.
        DamagedError: a file is missing or damaged.
    """
    began = time.monotonic()
    refuse_outside_links(folder)
    working, counts = _rewrite(folder, out, None)
    sources = {
        p.name: hash_file(p) for p in sorted(folder.iterdir()) if p.suffix in {".json", ".jinja", ".safetensors"}
    }
    entry = InputEntry(path=str(folder), content=hash_json(sources))
    code = {"herdlm": __version__}
    publish(
        working,
        out,
        kind="model",
        stage="import-hf",
        fingerprint=hash_json([entry.content, code]),
        inputs={"folder": entry},
        recipe={},
        seeds={},
        counts=counts,
        seconds=time.monotonic() - began,
        code=code,
    )
    return counts


def export_hf(
    folder: Path, out: Path, dtype: str = "bfloat16", *, finish: Callable[[Path], None] | None = None
) -> dict[str, Any]:
    """Write the model artifact ``folder`` as a plain Hugging Face folder, in "bfloat16" or "float32".

    ``finish`` may change the new folder before it gets its name.

    Returns and raises what :func:`import_hf` does.
    """
    if dtype not in EXPORTS:
        raise InputError(f"dtype {dtype!r} is unknown", f"Use {' or '.join(EXPORTS)}")
    working, counts = _rewrite(folder, out, EXPORTS[dtype])
    if finish is not None:
        finish(working)
    working.rename(out)
    return counts


def _rewrite(folder: Path, out: Path, dtype: torch.dtype | None) -> tuple[Path, dict[str, Any]]:
    """Stream ``folder`` into a working folder beside ``out``, in ``dtype``; None: the narrowest that loses nothing."""
    if out.exists():
        raise InputError(f"{out} exists already", "Choose another folder, or remove this one")
    working = out.with_name(f".{out.name}.partial")
    shutil.rmtree(working, ignore_errors=True)
    try:
        return working, rewrite_into(folder, working, dtype)
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        raise


def rewrite_into(folder: Path, out: Path, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Check a Hugging Face folder and stream it into the folder ``out``, in ``dtype``, which by default loses nothing.

    Returns and raises what :func:`import_hf` does.
    """
    config = read_config(folder)
    weights = checked_weights(folder, _shape_only(config))
    dtype = dtype or widest(weights)
    tensors = ((name, tensor.read().to(dtype)) for name, tensor in weights.items())
    size = _write(out, tensors, config, dtype, max_shard_bytes=MAX_SHARD_BYTES, generation=generation_of(folder))
    copy_companions(folder, out)
    return {"parameters": config.parameters, "bytes": size, "dtype": str(dtype).removeprefix("torch.")}
