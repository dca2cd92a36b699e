"""Training state on disk: published by an atomic rename, checked when read, never unpickled."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from herdlm.base.artefact import hash_file, sync_folder, write_text_durably
from herdlm.base.errors import DamagedError
from herdlm.model.transformer import Transformer


@dataclass(slots=True)
class Average:
    """The running mean of a model's weights over several checkpoints (Polyak averaging), in FP32."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    @torch.no_grad()
    def add(self, model: Transformer) -> None:
        """Count the model's present weights in."""
        self.count += 1
        for name, value in model.named_parameters():
            mean = self.weights.setdefault(name, torch.zeros_like(value, dtype=torch.float32))
            mean += (value.float() - mean) / self.count

    @torch.no_grad()
    def apply(self, model: Transformer) -> None:
        """Put the mean into the model."""
        for name, value in model.named_parameters():
            value.copy_(self.weights[name])


def save_checkpoint(
    folder: Path, step: int, model: Transformer, optimizer: torch.optim.Optimizer, average: Average, *, keep: int = 2
) -> None:
    """Save the state after ``step`` finished steps and drop all but the ``keep`` newest checkpoints."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    tensors = {f"model.{name}": value.detach() for name, value in model.named_parameters()}
    for parameter, state in optimizer.state.items():
        tensors |= {f"optimizer.{names[parameter]}.{key}": value for key, value in state.items()}
    tensors |= {f"average.{name}": value for name, value in average.weights.items()}
    final = folder / f"step-{step:08d}"
    working = folder / f".step-{step:08d}.tmp"
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, working / "state.safetensors")
    state = {"step": step, "average_count": average.count, "sha256": hash_file(working / "state.safetensors")}
    write_text_durably(working / "state.json", json.dumps(state) + "\n")
    shutil.rmtree(final, ignore_errors=True)
    working.rename(final)
    sync_folder(folder)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*"))


def load_checkpoint(path: Path, model: Transformer, optimizer: torch.optim.Optimizer, average: Average) -> int:
    """Put a checkpoint's state into model, optimizer and average; returns the number of finished steps.

    Raises:
        DamagedError: a file is missing, cannot be read, or is not what was saved.
    """
    remedy = f"Delete {path} to go on from the checkpoint before it"
    data = path / "state.safetensors"
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if hash_file(data) != state["sha256"]:
            raise DamagedError(f"{data} is not what was saved", remedy)
        tensors = load_file(data)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DamagedError(f"checkpoint {path} cannot be read: {error}", remedy) from error
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
            prefix = f"optimizer.{name}."
            moments = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in moments.items()
            }
    average.count = state["average_count"]
    average.weights = {
        key.removeprefix("average."): value for key, value in tensors.items() if key.startswith("average.")
    }
    return int(state["step"])
