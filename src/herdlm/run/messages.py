"""The messages between a run and its worker processes. Both directions carry JSON text."""

from __future__ import annotations

import traceback
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from herdlm.base.artifact import InputEntry
from herdlm.base.errors import HerdError, InputError
from herdlm.recipe import Recipe


class StageRequest(BaseModel):
    """Asks a worker to make one stage of a recipe in the run's folder ``root``.

    Args:
        inputs: role -> where the input is and its content hash.
        fingerprint: of the artifact to make.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    recipe: Recipe
    root: Path
    inputs: dict[str, InputEntry]
    fingerprint: str


class StageFailure(BaseModel):
    """An error that a stage raised in a worker, with its traceback as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    remedy: str
    exit_code: int
    traceback: str

    @classmethod
    def of(cls, error: HerdError) -> StageFailure:
        """The failure that ``error`` stands for; call it while the error is being handled."""
        return cls(what=error.what, remedy=error.remedy, exit_code=error.exit_code, traceback=traceback.format_exc())

    def as_error(self, stage: str) -> HerdError:
        """The error to raise in the run's own process; the worker's traceback is a note on it."""
        kind = InputError if self.exit_code == InputError.exit_code else HerdError
        error = kind(f"stage {stage}: {self.what}", self.remedy)
        error.add_note(self.traceback)
        return error


class StageReply(BaseModel):
    """A worker's answer to a :class:`StageRequest`; without a failure, the artifact is published."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    failure: StageFailure | None = None
