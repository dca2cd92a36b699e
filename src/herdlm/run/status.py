"""Reports the state of each stage in a run's folder, without running anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from herdlm.base.errors import DamagedError, InputError
from herdlm.recipe import Recipe
from herdlm.run.pipeline import stages_of
from herdlm.run.stage import RunFolder


@dataclass(frozen=True, slots=True)
class StageStatus:
    """A stage's state: "finished", "out of date" (an input or setting has changed), "started" or "to come"."""

    name: str
    state: str
    seconds: float | None


def status(root: Path) -> list[StageStatus]:
    """The stages of the recipe that was last run in ``root``.

    Raises:
        InputError: the folder contains no run.
        DamagedError: the run's recipe cannot be read.
    """
    folder = RunFolder(root)
    if not folder.recipe.is_file():
        raise InputError(f"{root} contains no run: there is no {folder.recipe.name}", "Give the --out of a herdlm run")
    try:
        recipe = Recipe.model_validate_json(folder.recipe.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(f"{folder.recipe} cannot be read: {error}", "Run the recipe again") from error
    finished = folder.finished()
    rows, current = [], set[str]()
    for stage in stages_of(recipe):
        manifest = finished.get(stage.name)
        if manifest is None:
            state = "started" if folder.working(stage.name).exists() else "to come"
        else:
            contents = {
                role: finished[name].content if (name := stage.inputs.get(role)) in current and name else old.content
                for role, old in manifest.inputs.items()
            }
            inputs_current = all(name in current for name in stage.inputs.values())
            sources = {f"source-{number}": path for number, path in enumerate(stage.files, 1)}
            sources |= {f"aid-{number}": path for number, path in enumerate(stage.aids, 1)}
            same = (
                set(manifest.inputs) == {*stage.inputs, *sources}
                and all(manifest.inputs[role].path == path for role, path in sources.items())
                and manifest.fingerprint == stage.fingerprint(recipe.seed, contents)
            )
            state = "finished" if inputs_current and same else "out of date"
            if state == "finished":
                current.add(stage.name)
        rows.append(StageStatus(stage.name, state, manifest.seconds if manifest else None))
    return rows
