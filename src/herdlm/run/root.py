"""The top of a run's folder: what belongs there, and the hashes of its own files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from herdlm.base.artifact import hash_file, hash_json, refuse_foreign, write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.json_files import read_object
from herdlm.curate.sources.hashes import MEMORY
from herdlm.run.stage import RunFolder, Stage

SEALED = "sealed.json"
LOCKS = (".run.lock", ".workers.lock")
OWN = {"stages", "working", "models", "recipe.json", "report.html", "report.tmp", SEALED, MEMORY, *LOCKS}


def refuse_foreign_run(root: Path, stages: Sequence[Stage]) -> None:
    """Refuse a folder with files that no run made: a run would mix its own with them, or replace them.

    Raises:
        InputError: there are some.
    """
    if not root.is_dir():
        return
    folder = RunFolder(root)
    inside = sorted(path.name for path in root.iterdir())
    foreign = [name for name in inside if name not in OWN and not (name.startswith(".") and name.endswith(".tmp"))]
    if foreign and not folder.recipe.is_file():
        raise InputError(
            f"{root} holds {foreign[0][:100]}, which no run made", "Give an empty or new folder with --out"
        )
    for stage in stages:
        refuse_foreign(folder.stage(stage.name))


def seal_root(folder: RunFolder) -> None:
    """Record the hashes of the run's own files and where its links lead, for :mod:`herdlm.run.verify`."""
    files = {path.name: hash_file(path) for path in (folder.recipe, folder.report) if path.is_file()}
    links = {}
    if folder.models.is_dir():
        links = {path.name: str(path.readlink()) for path in sorted(folder.models.iterdir()) if path.is_symlink()}
    content = {"files": files, "links": links}
    write_text_durably(folder.root / SEALED, json.dumps({**content, "seal": hash_json(content)}, indent=1) + "\n")


def root_damage(folder: RunFolder) -> list[str]:
    """What differs at the top of a run's folder from what the run wrote."""
    sealed = folder.root / SEALED
    found = [f"{path} is not empty" for name in LOCKS if (path := folder.root / name).is_file() and path.stat().st_size]
    try:
        stored = read_object(sealed, "")
    except InputError as error:
        return [*found, error.what]
    files, links = stored.get("files"), stored.get("links")
    if stored.keys() != {"files", "links", "seal"} or stored["seal"] != hash_json({"files": files, "links": links}):
        return [*found, f"{sealed} is not what was written"]
    assert isinstance(files, dict) and isinstance(links, dict)
    for path in (folder.recipe, folder.report):
        if path.is_file() and files.get(path.name) != hash_file(path):
            found.append(f"{path} is not what the run wrote")
        elif path.name in files and not path.is_file():
            found.append(f"{path} is missing")
    for name, target in links.items():
        path = folder.models / name
        if not path.is_symlink() or str(path.readlink()) != target:
            found.append(f"{path} does not lead to {target}")
    if folder.models.is_dir():
        strange = sorted({path.name for path in folder.models.iterdir()} - links.keys())
        found += [f"{folder.models / name} is no link of the run" for name in strange]
    return found + _memory_damage(folder.root / MEMORY)


def _memory_damage(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        stored = read_object(path, "")
    except InputError as error:
        return [f"{error.what} (it is a cache: the next run makes it again)"]
    if stored.keys() != {"seal", "hashes"} or stored["seal"] != hash_json(stored["hashes"]):
        return [f"{path} is not what was written (it is a cache: the next run makes it again)"]
    return []
