"""A teacher's distribution as columns of the data: computed once, stored beside the data, read step by step.

A folder holds ``teacher.json``, which identifies the teacher, and a safetensors file per optimizer step with ``ids``
and ``logprobs`` [targets, K] in the order of the step's targets. Each file stores a hash of its rows and one of its
values. A rename publishes a file, so an interrupted computation resumes with the missing steps, and several processes
can share the work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import DamagedError, InputError
from herdlm.tokens.batch import Batch, Batches

TEACHER_COLUMNS = ("teacher_ids", "teacher_logprobs")
KEY = "teacher.json"
Values = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TeacherKey:
    """What a teacher's columns depend on besides the rows: the model's content hash, and how it is run."""

    teacher: str
    vocab_size: int
    top_k: int
    temperature: float
    precision: str


class TeacherColumns:
    """The columns of one teacher in a folder, which is created if it does not exist.

    Raises:
        InputError: the folder holds columns of another teacher, or of the same teacher run in another way.
        DamagedError: the folder's key cannot be read.
    """

    def __init__(self, folder: Path, key: TeacherKey) -> None:
        self.folder, self.key = folder, key
        self.id_type = np.dtype("<u2" if key.vocab_size <= 1 << 16 else "<u4")
        path = folder / KEY
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_text_durably(path, json.dumps(asdict(key), indent=2) + "\n")
        try:
            stored = TeacherKey(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise DamagedError(f"{path} cannot be read: {error}", f"Delete {folder}") from error
        for name, value in asdict(stored).items():
            if value != (wanted := getattr(key, name)):
                raise InputError(
                    f"{folder} holds a teacher's columns with {name} {value}, but this run needs {wanted}",
                    f"Choose another folder, or delete {folder}",
                )

    def path(self, step: int) -> Path:
        """The file of a step."""
        return self.folder / f"step-{step:08d}.safetensors"

    def has(self, step: int, batches: Sequence[Batch]) -> bool:
        """Whether a step's columns exist, are whole, and belong to these rows."""
        try:
            self.read(step, batches)
        except (DamagedError, InputError):
            return False
        return True

    def write(self, step: int, batches: Sequence[Batch], ids: Values, logprobs: Values) -> None:
        """Store the columns [targets, K] of a step's targets."""
        tensors = {"ids": ids.astype(self.id_type), "logprobs": logprobs.astype("<f4")}
        path = self.path(step)
        writing = path.with_name(f".{path.name}.tmp")
        save_file(tensors, writing, metadata={"rows": _hash_rows(batches), "values": _hash(*tensors.values())})
        writing.replace(path)

    def read(self, step: int, batches: Sequence[Batch]) -> tuple[Values, Values]:
        """A step's columns, [targets, K] each.

        Raises:
            InputError: they do not exist, or belong to other rows than ``batches``.
            DamagedError: the file is not what was written.
        """
        path = self.path(step)
        if not path.is_file():
            raise InputError(f"{self.folder} has no columns of step {step}", "Run the teacher over the data first")
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                ids, logprobs = file.get_tensor("ids"), file.get_tensor("logprobs")
        except (SafetensorError, OSError) as error:
            raise DamagedError(f"{path} cannot be read: {error}", "Delete it and run the teacher again") from error
        if metadata.get("values") != _hash(ids, logprobs):
            raise DamagedError(f"{path} is not what was written", "Delete it and run the teacher again")
        if metadata.get("rows") != _hash_rows(batches):
            raise InputError(
                f"{path} was made for other rows than those of step {step}",
                "Use the data, seed and batch size that the teacher read, or another folder",
            )
        return ids, logprobs


@dataclass(frozen=True, slots=True)
class TaughtBatches:
    """Batches with a teacher's columns, [B, T, K], zero at places without a target."""

    batches: Batches
    columns: TeacherColumns

    @property
    def steps(self) -> int:
        """Optimizer steps in the run."""
        return self.batches.steps

    @property
    def content(self) -> str | None:
        """That of the batches; the columns follow from them."""
        return getattr(self.batches, "content", None)

    def micro_batches(self, step: int) -> list[Batch]:
        """The batches of a step; raises as :meth:`TeacherColumns.read`."""
        batches = self.batches.micro_batches(step)
        ids, logprobs = (torch.from_numpy(values) for values in self.columns.read(step, batches))
        taught, first = [], 0
        for batch in batches:
            here = batch.weights > 0
            rows = slice(first, first + int(here.sum()))
            first = rows.stop
            taught.append(with_columns(batch, ids[rows].to(torch.int64), logprobs[rows]))
        return taught


def with_columns(batch: Batch, ids: torch.Tensor, logprobs: torch.Tensor) -> Batch:
    """The batch with the columns of its targets [targets, K] laid out as :data:`TEACHER_COLUMNS`, [B, T, K]."""
    here = batch.weights > 0
    columns = {}
    for name, values in zip(TEACHER_COLUMNS, (ids, logprobs), strict=True):
        columns[name] = values.new_zeros(*here.shape, values.shape[1])
        columns[name][here] = values
    return replace(batch, columns=batch.columns | columns)


def _hash_rows(batches: Sequence[Batch]) -> str:
    """Hash of all that a teacher's output at a step's targets depends on, and of the targets' places."""
    fields = (getattr(b, name).numpy() for b in batches for name in ("tokens", "targets", "weights", "documents"))
    return _hash(*fields)


def _hash(*arrays: Values) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
