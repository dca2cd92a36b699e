"""Milestones: checkpoints that are published with the model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch.distributed as dist

from herdlm.train.checkpoint import CHECKPOINTS, checkpoints, step_of
from herdlm.train.config import TrainConfig


def keep_milestones(work: Path, out: Path, config: TrainConfig) -> None:
    """Link a run's milestones into its published folder, from the first process."""
    if config.milestone_every_steps is None or (dist.is_initialized() and dist.get_rank()):
        return
    for path in checkpoints(work / CHECKPOINTS):
        if step_of(path) % config.milestone_every_steps == 0:
            shutil.copytree(path, out / CHECKPOINTS / path.name, copy_function=os.link)
