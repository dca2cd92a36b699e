"""The record of the run that a work folder belongs to: another run that is given the folder is refused.

``run.json`` holds the objective, the settings that weights depend on, a hash of the data, the shape of the model, and a
sum over its initial weights. A run may be prolonged, divided among other processes, or saved at other steps.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import DamagedError, InputError
from herdlm.model.transformer import Transformer
from herdlm.parallel.model import ParallelModel
from herdlm.tokens.batch import Batches
from herdlm.train.checkpoint import CHECKPOINTS, checkpoints
from herdlm.train.config import TrainConfig
from herdlm.train.ranks import problem_of_any

RECORD = "run.json"
# Keys of the training that may change on the way: none changes a step that is finished.
FREE = {"horizon_steps", "average_last", "average_count", "checkpoint_every_steps", "checkpoints_kept", "save_dtype"}
FREE |= {"milestone_every_steps", "validate_every_steps", "prefetch_steps", "on_not_finite", "max_refused_steps"}
FREE |= {"watchdog_seconds"}
FREE_SHAPE = {"rope_scaling"}  # a long-context stage sets it


@dataclass(slots=True)
class WorkRecord:
    """What a work folder says of its run."""

    path: Path
    parts: dict[str, Any]

    def finish(self, model: Transformer | ParallelModel) -> None:
        """Record the weights that the run ends with, from which a longer one may continue. All processes call this."""
        self.parts["weights"] = [self.parts["weights"][0], hash_weights(model)]
        self.write()

    def write(self) -> None:
        """Write the record, from the first process."""
        if _leads():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text_durably(self.path, json.dumps(self.parts, indent=2) + "\n")

    def read(self) -> dict[str, Any] | None:
        """The record that is there; None if there is none.

        Raises:
            DamagedError: it cannot be read.
        """
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DamagedError(f"{self.path} cannot be read: {error}", f"Delete {self.path.parent}") from error
        if not isinstance(stored, dict) or stored.keys() != self.parts.keys():
            raise DamagedError(f"{self.path} is not the record of a run", f"Delete {self.path.parent}")
        return stored

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """What differs in the run of a stored record, in words."""
        found = []
        if stored["objective"] != self.parts["objective"]:
            found.append(f"the objective ({stored['objective']}, now {self.parts['objective']})")
        for name, title in (("settings", "settings"), ("model", "the shape of the model")):
            before, now = stored[name], self.parts[name]
            keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            if keys:
                found.append(f"{title} ({', '.join(f'{k} = {before.get(k)}, now {now.get(k)}' for k in keys)})")
        for name in ("data", "first rows"):
            if None not in (stored[name], self.parts[name]) and stored[name] != self.parts[name]:
                found.append("the data")
        if self.parts["weights"][0] not in stored["weights"] and not any("shape" in each for each in found):
            found.append("the initial weights")
        return found


def open_record(
    work: Path, model: Transformer | ParallelModel, objective: Any, batches: Batches, config: TrainConfig
) -> WorkRecord:
    """The record of a run in its work folder; the first process writes it. All processes of a model call this together.

    A folder without checkpoints has nothing of another run that could be resumed, so it becomes this run's.
    Batches are known by their ``content``, if they have one: a hash of the data and of the plan except its length.

    Args:
        objective: the objective, or a name for it.

    Raises:
        InputError: the folder holds checkpoints of another run; the error names what differs.
        DamagedError: the record cannot be read.
    """
    shape = model.shape if isinstance(model, ParallelModel) else model.config
    content = getattr(batches, "content", None)
    parts = {
        "objective": objective if isinstance(objective, str) else objective_identity(objective),
        "settings": config.model_dump(mode="json", exclude=FREE),
        "data": content,
        "first rows": _hash_first_rows(batches) if content is None else None,
        "model": shape.model_dump(mode="json", exclude=FREE_SHAPE),
        "weights": [hash_weights(model)],
    }
    record, problem = WorkRecord(work / RECORD, parts), None
    if _leads():
        stored = record.read()
        differences = record.differences(stored) if stored else []
        if differences and checkpoints(work / CHECKPOINTS):
            problem = f"{work} holds checkpoints of another run, which differs in {'; '.join(differences)}"
        elif differences:
            (work / "events.jsonl").unlink(missing_ok=True)
        elif stored:
            record.parts = parts | {"weights": stored["weights"]}
    if problem := problem_of_any(problem):
        raise InputError(problem, "Give this run a folder of its own, or delete that one")
    record.write()
    return record


def objective_identity(objective: Any) -> str:
    """An objective's class and the values of its fields."""
    kind = f"{type(objective).__module__}.{type(objective).__qualname__}"
    if not is_dataclass(objective):
        return kind
    values = ((field.name, getattr(objective, field.name)) for field in fields(objective))
    plain = (int, float, str, bool, type(None))
    shown = (
        f"{name}={value!r}" if isinstance(value, plain) else f"{name}={objective_identity(value)}"
        for name, value in values
    )
    return f"{kind}({', '.join(shown)})"


@torch.no_grad()
def hash_weights(model: Transformer | ParallelModel) -> str:
    """A hash of all weights, the same in every layout: their bits are added up as integers, weight by weight.

    It costs one pass over the weights. All processes of a model call this together.
    """
    mine = {name: _sum_of_bits(parameter) for name, parameter in model.named_parameters()}
    everyone: list[dict[str, int]] = [mine]
    if isinstance(model, ParallelModel):
        everyone = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(everyone, mine)
    sums: dict[str, int] = {}
    for part in everyone:
        for name, value in part.items():
            sums[name] = (sums.get(name, 0) + value) % (1 << 64)
    return hashlib.blake2b(json.dumps(sorted(sums.items())).encode(), digest_size=16).hexdigest()


def _sum_of_bits(parameter: Tensor) -> int:
    """The sum of a weight's bits on this process; 0 where another process counts the same part."""
    part = parameter.detach()
    if isinstance(part, DTensor):
        mesh = part.device_mesh
        copies = [dim for dim, placement in enumerate(part.placements) if not placement.is_shard()]
        if any(mesh.get_local_rank(dim) for dim in copies):
            return 0
        part = part.to_local()
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[part.dtype.itemsize]
    return int(part.contiguous().view(bits).sum(dtype=torch.int64))


def _hash_first_rows(batches: Batches) -> str | None:
    """A hash of the first step's rows, however they are divided into micro-batches."""
    if not batches.steps:
        return None
    digest = hashlib.blake2b(digest_size=16)
    made = batches.micro_batches(0)
    for name in ("tokens", "targets", "weights"):
        for batch in made:
            digest.update(np.ascontiguousarray(getattr(batch, name).numpy()).data)
    return digest.hexdigest()


def _leads() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0
