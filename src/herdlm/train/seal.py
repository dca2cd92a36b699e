"""The seal of a checkpoint: what it is, the hashes of its files, and one hash over all of that."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from herdlm.base.artifact import hash_file, hash_json, write_text_durably
from herdlm.base.errors import DamagedError, InputError
from herdlm.base.json_files import read_object

STATE = "state.json"
_HASH = r"^[0-9a-f]{64}$"


class SealedState(BaseModel):
    """The state of a run at a checkpoint.

    Attributes:
        processes: how many saved it.
        files: SHA-256 of every other file of the checkpoint, by name.
        seal: SHA-256 of all that, as canonical JSON.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    step: int = Field(ge=0)
    average_count: int = Field(ge=0)
    processes: int = Field(ge=1)
    files: dict[str, str] = Field(min_length=2)
    seal: str = Field(pattern=_HASH)

    def content(self) -> str:
        """What the seal must be."""
        return hash_json(self.model_dump(exclude={"seal"}))


def hashes_name(rank: int) -> str:
    """The name of the file in which a process writes the hashes of its files."""
    return f"hashes-{rank:05d}.json"


def seal(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state.json`` of a checkpoint whose other files are there, from the hashes that each process wrote.

    Raises:
        OSError: a file cannot be read or written, or a process left none of its hashes.
    """
    files: dict[str, str] = {}
    for rank in range(state["processes"]):
        path = folder / hashes_name(rank)
        files |= json.loads(path.read_text(encoding="utf-8"))
        files[path.name] = hash_file(path)
    present = {path.name for path in folder.iterdir()} - {STATE}
    if lost := files.keys() - present:
        raise OSError(f"{folder} lost {min(lost)} while it was written")
    files |= {name: hash_file(folder / name) for name in sorted(present - files.keys())}
    written = {**state, "files": files}
    write_text_durably(folder / STATE, json.dumps({**written, "seal": hash_json(written)}, indent=1) + "\n")


def read_seal(folder: Path) -> SealedState:
    """The state of a checkpoint, if it is as it was written and all its files are there; their hashes are not checked.

    Raises:
        DamagedError: it is not, or it was saved without a seal.
    """
    path, remedy = folder / STATE, f"Delete {folder} to resume from the checkpoint before it"
    try:
        state = SealedState.model_validate(read_object(path, remedy))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))[:100]
        raise DamagedError(f"{path} is not the state of a checkpoint: {where}: {problem['msg']}", remedy) from error
    except InputError as error:  # a missing one, too
        raise DamagedError(f"checkpoint {folder} cannot be read: {error.what}", remedy) from error
    if state.seal != state.content():
        raise DamagedError(f"{path} is not what was saved: its seal does not fit", remedy)
    strange = next((name for name in state.files if not re.fullmatch(r"[A-Za-z0-9_.-]+", name)), None)
    present = {each.name for each in folder.iterdir()} - {STATE}
    if strange is not None or present != state.files.keys():
        other = strange or sorted(present ^ state.files.keys())[0]
        what = "is missing" if other in state.files else "does not belong to it"
        raise DamagedError(f"checkpoint {folder} is damaged: {other[:100]} {what}", remedy)
    return state
