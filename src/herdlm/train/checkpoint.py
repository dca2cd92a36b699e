"""Training state on disk: each process writes its part, any layout reads it, a rename publishes it.

A checkpoint is a folder ``step-N`` with a safetensors file per process (torch's distributed checkpoint in its Hugging
Face form, which knows each part's place in the whole tensor), the hashes of those files, and ``state.json``, which is
written last. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from herdlm.base.artefact import hash_file, sync_folder, write_text_durably
from herdlm.base.errors import DamagedError
from herdlm.train.guards import agree

STATE = "state.json"


class HasParameters(Protocol):
    """What a checkpoint is of: a model, or this process's part of one under the names of the whole."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and values."""
        ...


@dataclass(slots=True)
class Average:
    """The running mean of a model's weights over several checkpoints (Polyak averaging), in FP32."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    @torch.no_grad()
    def add(self, model: HasParameters) -> None:
        """Count the model's present weights in."""
        self.count += 1
        for name, value in model.named_parameters():
            mean = self.weights.setdefault(name, torch.zeros_like(value, dtype=torch.float32))
            mean += (value.float() - mean) / self.count

    @torch.no_grad()
    def apply(self, model: HasParameters) -> None:
        """Put the mean into the model."""
        for name, value in model.named_parameters():
            value.copy_(self.weights[name])


def save_checkpoint(
    folder: Path, step: int, model: HasParameters, optimizer: torch.optim.Optimizer, average: Average, *, keep: int = 2
) -> None:
    """Save the state after ``step`` finished steps and drop all but the ``keep`` newest checkpoints.

    A call for all processes of a layout at the same time. Until the first of them renames the folder at the end, the
    checkpoint does not exist.
    """
    final, working = folder / f"step-{step:08d}", folder / f".step-{step:08d}.tmp"
    if _rank() == 0:
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(parents=True)
    _meet()
    tensors = _tensors(model, optimizer, average)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is")  # one process needs no group
        save(tensors, storage_writer=HuggingFaceStorageWriter(str(working), save_distributed=True))
    mine = sorted(working.glob(f"shard-{_rank() + 1:05d}-*"))
    hashes = {path.name: hash_file(path) for path in mine}
    write_text_durably(working / f"hashes-{_rank():05d}.json", json.dumps(hashes) + "\n")
    _meet()
    if _rank() == 0:
        state = {"step": step, "average_count": average.count, "processes": _world()}
        write_text_durably(working / STATE, json.dumps(state) + "\n")
        sync_folder(working)
        shutil.rmtree(final, ignore_errors=True)
        working.rename(final)
        sync_folder(folder)
        for old in checkpoints(folder)[:-keep]:
            shutil.rmtree(old)
    _meet()


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*"))


def load_checkpoint(path: Path, model: HasParameters, optimizer: torch.optim.Optimizer, average: Average) -> int:
    """Put a checkpoint's state into model, optimizer and average; returns the number of finished steps.

    A call for all processes at the same time; their layout need not be that which saved.

    Raises:
        DamagedError: a file is missing, cannot be read, or is not what was saved. All processes raise it.
    """
    remedy = f"Delete {path} to go on from the checkpoint before it"
    problem, state = _find_damage(path)
    if agree(problem is not None):
        raise DamagedError(problem or f"another process found checkpoint {path} damaged", remedy)
    _prepare(model, optimizer, average, state["average_count"])
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is")
            load(_tensors(model, optimizer, average), storage_reader=HuggingFaceStorageReader(str(path)))
    except (CheckpointException, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        told = " ".join(str(error).split())[:300]
        raise DamagedError(f"checkpoint {path} does not fit this model: {told}", remedy) from error
    return int(state["step"])


def _tensors(model: HasParameters, optimizer: torch.optim.Optimizer, average: Average) -> dict[str, Tensor]:
    """All tensors of the state, named; values are shared, not copied."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            # A single number is kept as a list of one: the file format places parts by their offsets.
            tensors[f"optimizer.{name}.{key}"] = value.view(1) if value.ndim == 0 else value
    return tensors | {f"average.{name}": value for name, value in average.weights.items()}


def _prepare(model: HasParameters, optimizer: torch.optim.Optimizer, average: Average, averaged: int) -> None:
    """Make room for the state that a checkpoint of AdamW and an average holds."""
    average.count, average.weights = averaged, {}
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        if averaged:
            average.weights[name] = torch.zeros_like(parameter, dtype=torch.float32)


def _find_damage(path: Path) -> tuple[str | None, dict[str, Any]]:
    """What is wrong with the part of a checkpoint's files that this process checks, and the checkpoint's state."""
    try:
        state: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
        for saver in range(_rank(), state["processes"], _world()):
            hashes = json.loads((path / f"hashes-{saver:05d}.json").read_text(encoding="utf-8"))
            for name, expected in hashes.items():
                if hash_file(path / name) != expected:
                    return f"{path / name} is not what was saved", state
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"checkpoint {path} cannot be read: {error}", {}
    return None, state


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _meet() -> None:
    if dist.is_initialized():
        dist.barrier()
