"""A stage: a named step of a run with its inputs, its part of the recipe, and the function that does the work."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdlm.base.artefact import MANIFEST, Manifest, hash_json, read_manifest
from herdlm.base.seeds import derive_seed

if TYPE_CHECKING:
    from herdlm.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Context:
    """What a stage's function gets: its part of the recipe, its inputs as folders, and where to write.

    Args:
        out: empty; becomes the stage's artefact when the function returns.
        work: kept when a run is cut off and the same stage is started again; for checkpoints.
    """

    stage: Stage
    recipe: Recipe
    inputs: dict[str, Path]
    out: Path
    work: Path
    quiet: bool = False

    @property
    def device(self) -> str:
        """Where this stage computes: "cpu" or "cuda"."""
        from herdlm.generate.load import pick_device

        return pick_device(self.recipe.compute.device).type

    def seed(self, *names: str | int) -> int:
        """A seed of this stage's own, from the recipe's."""
        return derive_seed(self.recipe.seed, *self.stage.seed_names, *names)


Work = Callable[[Context], dict[str, Any]]


def load_work(name: str) -> Work:
    """The function behind ``module:function``; stages name theirs so that planning a run loads none of them."""
    module, _, function = name.partition(":")
    work: Work = getattr(importlib.import_module(module), function)
    return work


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a run.

    Args:
        name: of its folder under ``stages/``.
        kind: of artefact it makes.
        work: "module:function" that does it and returns counts for the manifest.
        inputs: role -> name of the stage that makes it. Their content decides, not their age.
        settings: the part of the recipe it depends on, and nothing else of it.
        files: the paths outside the run it reads.
        aids: files and folders outside the run that say how, such as a trained grader.
        after: stages that must be finished before, without being an input.
        options: fixed arguments of ``work`` that tell stages of one kind apart.
        version: raised when the code of ``work`` changes what it makes.
        seed_names: the random stream it draws from; its name unless stages are to draw alike.
    """

    name: str
    kind: str
    work: str
    inputs: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    aids: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    version: int = 1
    seed_names: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed_names", self.seed_names or (self.name,))

    @property
    def needs(self) -> set[str]:
        """The stages that must be finished before this one."""
        return {*self.inputs.values(), *self.after}

    def fingerprint(self, seed: int, contents: dict[str, str]) -> str:
        """What would be made: equal fingerprints make equal artefacts. ``contents`` are the inputs' hashes by role."""
        return hash_json(
            {
                "kind": self.kind,
                "version": self.version,
                "seed": derive_seed(seed, *self.seed_names),
                "settings": self.settings,
                "options": self.options,
                "inputs": contents,
            }
        )


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run keeps things."""

    root: Path

    def stage(self, name: str) -> Path:
        """The artefact of a finished stage."""
        return self.root / "stages" / name

    def working(self, name: str) -> Path:
        """Where a stage works until it is finished."""
        return self.root / "working" / name

    @property
    def models(self) -> Path:
        """Links to the models that are the run's result."""
        return self.root / "models"

    @property
    def recipe(self) -> Path:
        """The recipe as it was run, every key resolved."""
        return self.root / "recipe.json"

    @property
    def report(self) -> Path:
        """The page that tells what happened."""
        return self.root / "report.html"

    def manifest(self, name: str) -> Manifest | None:
        """The manifest of a stage, None while it is not finished."""
        return read_manifest(self.stage(name))

    def finished(self) -> dict[str, Manifest]:
        """The manifests of all finished stages."""
        folders = sorted(path.parent for path in (self.root / "stages").glob(f"*/{MANIFEST}"))
        return {folder.name: manifest for folder in folders if (manifest := read_manifest(folder))}
