"""Where an artifact came from: a walk over manifests, each of which names its inputs by content hash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from herdlm.base.artifact import Manifest
from herdlm.base.errors import DamagedError


@dataclass(frozen=True, slots=True)
class Origin:
    """A stage's artifact with what it was made from, or a file from outside the run, which has no manifest."""

    path: str
    content: str
    manifest: Manifest | None
    origins: tuple[Origin, ...]

    @property
    def stage(self) -> str | None:
        """The stage that made it; None for a file from outside the run."""
        return stage_of(self.path) if self.manifest else None


def stage_of(path: str) -> str | None:
    """NAME of an input's path ``stages/NAME``; None for a path outside the run."""
    parts = PurePosixPath(path).parts
    return parts[1] if len(parts) == 2 and parts[0] == "stages" else None


def walk(stage: str, manifest_of: Callable[[str], Manifest | None]) -> Origin:
    """The artifact of ``stage`` and all its ancestors. One that several artifacts were made from is the same object.

    Args:
        manifest_of: the manifest of a stage by name; None where the run has no such artifact.

    Raises:
        DamagedError: an ancestor is gone, or was made again after an artifact was made from it.
    """
    walked: dict[str, Origin] = {}

    def visit(name: str, manifest: Manifest) -> Origin:
        if name in walked:
            return walked[name]
        origins = []
        for entry in manifest.inputs.values():
            parent = stage_of(entry.path)
            if parent is None:
                origins.append(Origin(entry.path, entry.content, None, ()))
                continue
            source = manifest_of(parent)
            if source is None:
                raise DamagedError(f"stage {name} was made from {parent}, which the run lacks", "Run the recipe again")
            if source.content != entry.content:
                raise DamagedError(
                    f"stage {name} was made from another {parent} than the run holds now", "Run the recipe to its end"
                )
            origins.append(visit(parent, source))
        walked[name] = Origin(f"stages/{name}", manifest.content, manifest, tuple(origins))
        return walked[name]

    manifest = manifest_of(stage)
    if manifest is None:
        raise DamagedError(f"the run lacks stage {stage}", "Run the recipe again")
    return visit(stage, manifest)
