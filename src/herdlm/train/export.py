"""Exports a model, a checkpoint of its training, or a LoRA adapter with its base, as a plain Hugging Face folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.model import hf
from herdlm.model.adapter_folder import CONFIG as ADAPTER_CONFIG
from herdlm.model.folders import model_folder
from herdlm.model.hf import EXPORTS, copy_companions, generation_of, read_config, save_folder
from herdlm.model.lora import merge_lora
from herdlm.model.start import is_adapter, open_start
from herdlm.model.transformer import Transformer, build
from herdlm.train.checkpoint import load_weights, step_of
from herdlm.train.save import complete_folder
from herdlm.train.seal import STATE

ADAPTER = "adapter"  # the folder beside a merged model, with the adapter that was merged


def export_model(path: Path, out: Path, dtype: str = "bfloat16") -> dict[str, Any]:
    """Write what ``path`` means as the folder ``out``: with stop tokens, and a pad token for batches.

    Args:
        path: a model folder, a run (its flagship), a folder ``MODEL/checkpoints/step-N``, or a LoRA adapter.

    Raises:
        InputError: there is no model, ``out`` exists, or ``dtype`` is unknown.
        DamagedError: a file cannot be read, or differs from what was saved.
    """
    if is_checkpoint(path):
        return export_checkpoint(path, out, dtype)
    if not is_adapter(path):
        return hf.export_hf(model_folder(path), out, dtype, finish=complete_folder)
    start = open_start(path)
    model = start.load()
    _write(model, start.tokenizer, out, dtype)
    return {"parameters": model.config.parameters, "dtype": dtype}


def is_checkpoint(path: Path) -> bool:
    """Whether ``path`` is a checkpoint and not a model."""
    return (path / STATE).is_file()


def export_checkpoint(path: Path, out: Path, dtype: str = "bfloat16") -> dict[str, Any]:
    """Write ``MODEL/checkpoints/step-N``, saved in any layout, as a Hugging Face folder.

    Raises:
        InputError: its model is not in the folder above ``checkpoints``, ``out`` exists, or ``dtype`` is unknown.
        DamagedError: a file of the checkpoint differs from what was saved.
    """
    folder = path.resolve().parent.parent
    adapter = next((at for at in (folder / ADAPTER, folder) if (at / ADAPTER_CONFIG).is_file()), None)
    if adapter is None:
        model = build(read_config(folder))
        load_weights(path, model)
    else:  # the checkpoint has the adapter's weights alone
        model = open_start(adapter).load(merge=False)
        load_weights(path, model)
        merge_lora(model)
    _write(model, folder, out, dtype)
    return {"parameters": model.config.parameters, "step": step_of(path), "dtype": dtype}


def _write(model: Transformer, companions: Path, out: Path, dtype: str) -> None:
    if dtype not in EXPORTS:
        raise InputError(f"dtype {dtype!r} is unknown", f"Use {' or '.join(EXPORTS)}")
    if out.exists():
        raise InputError(f"{out} exists already", "Name another folder, or remove this one")
    working = out.with_name(f".{out.name}.partial")
    shutil.rmtree(working, ignore_errors=True)
    try:
        save_folder(model, working, dtype=EXPORTS[dtype], generation=generation_of(companions))
        copy_companions(companions, working)
        complete_folder(working)
        working.rename(out)
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        raise
