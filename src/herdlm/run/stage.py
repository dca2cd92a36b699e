"""A stage: a named step of a run with its inputs, its part of the recipe, and the function that does the work."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdlm.base.artifact import MANIFEST, Manifest, hash_json, read_manifest
from herdlm.base.seeds import derive_seed

if TYPE_CHECKING:
    from herdlm.evaluate.engines import EngineOptions
    from herdlm.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Context:
    """The arguments of a stage's function.

    Args:
        inputs: role -> folder of the input.
        out: empty folder; its files become the stage's artifact when the function returns.
        work: folder for checkpoints; it survives an interruption and is there when the same stage starts again.
    """

    stage: Stage
    recipe: Recipe
    inputs: dict[str, Path]
    out: Path
    work: Path
    quiet: bool = False

    @property
    def device(self) -> str:
        """The device that this stage computes on: "cpu" or "cuda"."""
        from herdlm.generate.load import pick_device

        return pick_device(self.recipe.compute.device).type

    @property
    def engines(self) -> EngineOptions:
        """How this stage loads the models that sample and score in post-training."""
        from herdlm.evaluate.engines import WRITING_PAGE, EngineOptions

        compute, align = self.recipe.compute, self.recipe.align
        assert align
        workers = align.workers
        if align.tensor_parallel * align.pipeline_parallel > 1 and align.cluster is None:
            workers = workers or 1  # a process can have one parallel model, and a stage's process makes many stages
        return EngineOptions(
            compute.device,
            align.dtype,
            align.tensor_parallel,
            align.pipeline_parallel,
            workers,
            align.cluster,
            page=WRITING_PAGE,
            max_batch=align.batch,
            threads=compute.threads_per_stage,
        )

    def seed(self, *names: str | int) -> int:
        """A seed for this stage and ``names``, derived from the recipe's."""
        return derive_seed(self.recipe.seed, *self.stage.seed_names, *names)


Work = Callable[[Context], dict[str, Any]]


def on_processes(work: Work) -> Work:
    """Mark a stage's function as one that all processes of a group call together, of which the first returns counts."""
    work.on_processes = True  # type: ignore[attr-defined]
    return work


def takes_processes(work: Work) -> bool:
    """Whether several processes may call a stage's function together."""
    return getattr(work, "on_processes", False)


def load_work(name: str) -> Work:
    """Import the function that ``module:function`` names. Stages name it so that planning imports none of them."""
    module, _, function = name.partition(":")
    work: Work = getattr(importlib.import_module(module), function)
    return work


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a run.

    Args:
        name: name of the stage and of its folder under ``stages/``.
        kind: kind of the artifact.
        work: "module:function" of the function that makes the artifact and returns counts for the manifest.
        inputs: role -> name of the stage that makes the input. A stage is out of date if their content changes.
        settings: the part of the recipe that the artifact depends on.
        files: source paths outside the run.
        aids: files and folders outside the run that the stage reads besides, such as a trained grader or the model
            that a training starts from.
        after: stages that must finish before this one but are not inputs.
        options: fixed arguments of ``work``, which distinguish stages with the same function.
        version: increased when ``work`` changes in a way that changes the artifact.
        seed_names: names to derive the seed from; by default the stage's name. Stages that share them share a seed.
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
        """Hash of everything the artifact depends on. ``contents`` maps each input's role to its content hash."""
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
    """The layout of a run's folder."""

    root: Path

    def stage(self, name: str) -> Path:
        """The artifact of a finished stage."""
        return self.root / "stages" / name

    def working(self, name: str) -> Path:
        """The folder that an unfinished stage works in."""
        return self.root / "working" / name

    @property
    def models(self) -> Path:
        """The folder of links to the resulting models."""
        return self.root / "models"

    @property
    def recipe(self) -> Path:
        """The recipe that was last run, with every key resolved."""
        return self.root / "recipe.json"

    @property
    def report(self) -> Path:
        """The report, an HTML page."""
        return self.root / "report.html"

    @property
    def workers_lock(self) -> Path:
        """Every process that works on the run holds a shared lock on this file."""
        return self.root / ".workers.lock"

    def manifest(self, name: str) -> Manifest | None:
        """The manifest of a stage; None if it is not finished."""
        return read_manifest(self.stage(name))

    def finished(self) -> dict[str, Manifest]:
        """The manifests of all finished stages."""
        folders = sorted(path.parent for path in (self.root / "stages").glob(f"*/{MANIFEST}"))
        return {folder.name: manifest for folder in folders if (manifest := read_manifest(folder))}
