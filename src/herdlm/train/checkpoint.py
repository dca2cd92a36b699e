"""Checkpoints of the training state: each process writes its part, a rename publishes it, and any layout reads it.

A checkpoint is a folder ``step-N`` with a safetensors file per process (torch's distributed checkpoint in its Hugging
Face form, which records each part's place in the whole tensor), the hashes of those files, and ``state.json``, which is
written last: it holds the hashes of all other files and, of everything in it, its own (:mod:`herdlm.train.seal`).
Nothing is ever unpickled.

The run pauses while the state is copied; a thread then writes the copy, over a process group of its own. One checkpoint
is written at a time.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
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

from herdlm.base.artifact import hash_file, sync_folder, write_text_durably
from herdlm.base.errors import DamagedError, HerdError
from herdlm.train.config import TrainConfig
from herdlm.train.ranks import problem_of_any
from herdlm.train.seal import SealedState, hashes_name, read_seal, seal

CHECKPOINTS = "checkpoints"


def trained(model: HasParameters) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and values of the weights that are trained: what a checkpoint holds. Frozen ones come from their folder."""
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


class HasParameters(Protocol):
    """A model, or this process's part of one, with the parameter names of the whole model."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters."""
        ...


@dataclass(slots=True)
class Average:
    """The running mean of a model's weights over several checkpoints (Polyak averaging), in FP32."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    @torch.no_grad()
    def add(self, model: HasParameters) -> None:
        """Add the model's current weights to the mean."""
        self.count += 1
        for name, value in trained(model):
            mean = self.weights.setdefault(name, torch.zeros_like(value, dtype=torch.float32))
            mean += (value.float() - mean) / self.count

    @torch.no_grad()
    def apply(self, model: HasParameters) -> None:
        """Copy the mean into the model."""
        for name, value in trained(model):
            value.copy_(self.weights[name])


class Checkpointer:
    """Saves a run's state into ``folder`` and restores it; use as a context manager.

    All processes of a layout call each method together. The newest ``config.checkpoints_kept`` checkpoints stay, and
    every milestone.
    """

    def __init__(
        self,
        folder: Path,
        model: HasParameters,
        optimizer: torch.optim.Optimizer,
        average: Average,
        config: TrainConfig,
    ) -> None:
        self.folder, self.model, self.optimizer, self.average, self.config = folder, model, optimizer, average, config
        self.group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self._writing: threading.Thread | None = None
        self._failure: BaseException | None = None
        if _rank() == 0:
            for torn in folder.glob(".step-*.tmp"):  # of a process that was killed while it wrote
                shutil.rmtree(torn)

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        if kind is None:
            self.wait()
        elif self._writing:  # the error that ends the run is raised, not one of the writing
            self._writing.join()
        if self.group is not None and kind is None:
            dist.destroy_process_group(self.group)

    def is_due(self, step: int, steps: int) -> bool:
        """Whether to save after ``step`` of ``steps``: after the last one only where a longer run continues from it."""
        if step == steps:
            return (self.config.horizon_steps or 0) > steps
        return step % self.config.checkpoint_every_steps == 0

    def save(self, step: int) -> None:
        """Copy the state after ``step`` finished steps and start writing it.

        The checkpoint does not exist until the first process renames its folder at the end.

        Raises:
            HerdError: the checkpoint before this one could not be written.
        """
        self.wait()
        tensors = _tensors(self.model, self.optimizer, self.average)
        copies = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
        state = {"step": step, "average_count": self.average.count, "processes": _world()}
        self._writing = threading.Thread(target=self._write, args=(step, copies, state), name="checkpoint")
        self._writing.start()

    def wait(self) -> None:
        """Wait until the checkpoint that is being written is published.

        Raises:
            HerdError: it could not be written. All processes raise it.
        """
        if self._writing:
            self._writing.join()
            self._writing = None
        if failure := self._failure:
            self._failure = None
            raise failure

    def restore(self) -> tuple[int, dict[str, str]]:
        """Restore the newest checkpoint that can be read.

        Returns:
            The number of finished steps, 0 if there is no checkpoint; and the problems of newer ones, by name.

        Raises:
            DamagedError: there are checkpoints, and none can be read.
        """
        self.wait()
        damaged: dict[str, str] = {}
        saved = checkpoints(self.folder)
        for path in reversed(saved):
            try:
                return load_checkpoint(path, self.model, self.optimizer, self.average), damaged
            except DamagedError as error:
                if path == saved[0]:
                    raise
                damaged[path.name] = error.what
        return 0, damaged

    def _write(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        final, working = self.folder / f"step-{step:08d}", self.folder / f".step-{step:08d}.tmp"
        try:
            self._together(lambda: self._make(working))
            self._together(lambda: self._write_part(working, tensors))
            self._together(lambda: self._publish(working, final, state))
        except HerdError as error:
            self._failure = HerdError(f"checkpoint {final} was not written: {error.what}", error.remedy)
        except BaseException as error:  # a thread's error would be lost: wait() raises it
            self._failure = error

    def _together(self, act: Callable[[], None]) -> None:
        """Act, then wait for all processes. If one of them failed, all raise."""
        problem: str | None = None
        try:
            act()
        except (OSError, CheckpointException, RuntimeError, SafetensorError) as error:
            problem = _message(error)
        if problem := problem_of_any(problem, self.group):
            raise HerdError(problem, "Free space or repair the disk, and run again: earlier checkpoints are whole")

    def _make(self, working: Path) -> None:
        if _rank() == 0:
            shutil.rmtree(working, ignore_errors=True)
            working.mkdir(parents=True)

    def _write_part(self, working: Path, tensors: dict[str, Tensor]) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is")  # one process needs no group
            writer = HuggingFaceStorageWriter(str(working), save_distributed=True)
            save(tensors, storage_writer=writer, process_group=self.group)
        mine = sorted(working.glob(f"shard-{_rank() + 1:05d}-*"))
        hashes = {path.name: hash_file(path) for path in mine}
        write_text_durably(working / hashes_name(_rank()), json.dumps(hashes) + "\n")

    def _publish(self, working: Path, final: Path, state: dict[str, Any]) -> None:
        if _rank() != 0:
            return
        seal(working, state)
        sync_folder(working)
        shutil.rmtree(final, ignore_errors=True)
        working.rename(final)
        sync_folder(self.folder)
        passing = [path for path in checkpoints(self.folder) if not self._is_milestone(path)]
        for old in passing[: -self.config.checkpoints_kept]:
            shutil.rmtree(old)

    def _is_milestone(self, path: Path) -> bool:
        every = self.config.milestone_every_steps
        return every is not None and step_of(path) % every == 0


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8,18}", path.name) and path.is_dir())


def step_of(path: Path) -> int:
    """The number of finished steps, from the name of a checkpoint's folder."""
    number = path.name.removeprefix("step-")
    if not re.fullmatch(r"\d{1,18}", number):
        raise DamagedError(f"{path} is not named as a checkpoint", "Name it step-N again, with the number of its step")
    return int(number)


def load_checkpoint(path: Path, model: HasParameters, optimizer: torch.optim.Optimizer, average: Average) -> int:
    """Load a checkpoint's state into model, optimizer and average; returns the number of finished steps.

    All processes call this together, in any layout.

    Raises:
        DamagedError: a file is missing, cannot be read, or differs from what was saved. All processes raise it.
    """
    remedy = f"Delete {path} to resume from the checkpoint before it"
    problem, state = _find_damage(path)
    if problem := problem_of_any(problem):
        raise DamagedError(problem, remedy)
    assert state
    _prepare(model, optimizer, average, state.average_count)
    try:
        _load(path, _tensors(model, optimizer, average))
    except (CheckpointException, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise DamagedError(f"checkpoint {path} does not fit this model: {_message(error)}", remedy) from error
    return state.step


def load_weights(path: Path, model: HasParameters) -> None:
    """Load the weights of a checkpoint, saved in any layout, into a model.

    Raises:
        DamagedError: as :func:`load_checkpoint`.
    """
    if problem := problem_of_any(_find_damage(path)[0]):
        raise DamagedError(problem, "Use another checkpoint")
    try:
        _load(path, {f"model.{name}": parameter.detach() for name, parameter in trained(model)})
    except (CheckpointException, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        problem = f"checkpoint {path} does not fit this model: {_message(error)}"
        raise DamagedError(problem, "Use the model that it was saved from") from error


def _load(path: Path, tensors: dict[str, Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is")
        load(tensors, storage_reader=HuggingFaceStorageReader(str(path)))


def _message(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _tensors(model: HasParameters, optimizer: torch.optim.Optimizer, average: Average) -> dict[str, Tensor]:
    """All tensors of the state by name; values are shared, not copied."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in trained(model):
        tensors[f"model.{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            # A scalar is kept as a list of one: the file format places parts by their offsets.
            tensors[f"optimizer.{name}.{key}"] = value.view(1) if value.ndim == 0 else value
    return tensors | {f"average.{name}": value for name, value in average.weights.items()}


def _prepare(model: HasParameters, optimizer: torch.optim.Optimizer, average: Average, averaged: int) -> None:
    """Allocate the state of AdamW and of the average, for a checkpoint to fill."""
    average.count, average.weights = averaged, {}
    for name, parameter in trained(model):
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        if averaged:
            average.weights[name] = torch.zeros_like(parameter, dtype=torch.float32)


def _find_damage(path: Path) -> tuple[str | None, SealedState | None]:
    """The problem of the files that this process checks, None if they are whole; and the checkpoint's state."""
    try:
        state = read_seal(path)
        if state.step != step_of(path):
            return f"checkpoint {path} is of step {state.step}, not of the step in its name", None
        for name in sorted(state.files)[_rank() :: _world()]:
            if hash_file(path / name) != state.files[name]:
                return f"{path / name} is not what was saved", None
    except (OSError, DamagedError) as error:
        return error.what if isinstance(error, DamagedError) else f"checkpoint {path} cannot be read: {error}", None
    return None, state


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1
