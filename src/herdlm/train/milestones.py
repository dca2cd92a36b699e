"""Milestones: checkpoints that are published with the model, and can be exported like one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist

from herdlm.base.errors import InputError
from herdlm.model.hf import EXPORTS, copy_companions, generation_of, read_config, save_folder
from herdlm.model.transformer import build
from herdlm.train.checkpoint import CHECKPOINTS, STATE, checkpoints, load_weights, step_of
from herdlm.train.config import TrainConfig


def keep_milestones(work: Path, out: Path, config: TrainConfig) -> None:
    """Link a run's milestones into its published folder, from the first process."""
    if config.milestone_every_steps is None or (dist.is_initialized() and dist.get_rank()):
        return
    for path in checkpoints(work / CHECKPOINTS):
        if step_of(path) % config.milestone_every_steps == 0:
            shutil.copytree(path, out / CHECKPOINTS / path.name, copy_function=os.link)


def is_checkpoint(path: Path) -> bool:
    """Whether ``path`` is a checkpoint and not a model."""
    return (path / STATE).is_file()


def export_checkpoint(path: Path, out: Path, dtype: str = "bfloat16") -> dict[str, Any]:
    """Write ``MODEL/checkpoints/step-N``, saved in any layout, as a Hugging Face folder.

    Raises:
        InputError: its model is not in the folder above ``checkpoints``, ``out`` exists, or ``dtype`` is unknown.
        DamagedError: a file of the checkpoint differs from what was saved.
    """
    if dtype not in EXPORTS:
        raise InputError(f"dtype {dtype!r} is unknown", f"Use {' or '.join(EXPORTS)}")
    if out.exists():
        raise InputError(f"{out} exists already", "Name another folder, or remove this one")
    folder = path.resolve().parent.parent
    shape = read_config(folder)
    model = build(shape)
    load_weights(path, model)
    working = out.with_name(f".{out.name}.partial")
    shutil.rmtree(working, ignore_errors=True)
    save_folder(model, working, dtype=EXPORTS[dtype], generation=generation_of(folder))
    copy_companions(folder, working)
    working.rename(out)
    return {"parameters": shape.parameters, "step": step_of(path), "dtype": dtype}
