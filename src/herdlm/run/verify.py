"""Compares everything in a run, an artifact or a checkpoint with what was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from herdlm.base.artifact import MANIFEST, Manifest, artifact_files, hash_file, read_manifest
from herdlm.base.errors import DamagedError, InputError
from herdlm.base.lineage import stage_of
from herdlm.run.root import OWN, root_damage
from herdlm.run.stage import RunFolder
from herdlm.train.checkpoint import CHECKPOINTS, checkpoints, step_of
from herdlm.train.seal import STATE, read_seal


@dataclass(slots=True)
class Verified:
    """What was compared, and what differs, a line each."""

    artifacts: int = 0
    checkpoints: int = 0
    files: int = 0
    bytes: int = 0
    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify_path(path: Path) -> Verified:
    """Compare every file of a run, an artifact, a checkpoint or a folder of checkpoints with its recorded hash.

    Raises:
        InputError: the path is none of these.
    """
    result = Verified()
    if not path.is_dir():
        raise InputError(f"{path} is no folder", "Give a run, an artifact of herdlm, or a checkpoint")
    if (path / MANIFEST).exists():
        _artifact(path, result)
    elif (path / STATE).exists():
        _checkpoint(path, result)
    elif (path / "recipe.json").exists() or (path / "stages").is_dir():
        _run(path, result)
    elif checkpoints(path) or checkpoints(path / CHECKPOINTS):
        for each in checkpoints(path) or checkpoints(path / CHECKPOINTS):
            _checkpoint(each, result)
    else:
        raise InputError(
            f"{path} is neither a run nor an artifact nor a checkpoint: it has no recipe.json, {MANIFEST} or {STATE}",
            "A folder of another tool has no hashes to compare; herdlm import-hf makes an artifact of it",
        )
    return result


def _run(root: Path, result: Verified) -> None:
    folder = RunFolder(root)
    result.damage += root_damage(folder)
    result.files += sum(path.is_file() for path in root.iterdir())
    manifests = {}
    for stage in sorted((root / "stages").glob("*")):
        if not stage.is_dir() or not (stage / MANIFEST).exists():
            result.damage.append(f"{stage} is no artifact: it has no {MANIFEST}")
            continue
        if (manifest := _artifact(stage, result)) is not None:
            manifests[stage.name] = manifest
    for name, manifest in manifests.items():
        for entry in manifest.inputs.values():
            source = manifests.get(stage_of(entry.path) or "")
            if source is not None and source.content != entry.content:
                result.notes.append(f"{folder.stage(name)} was made from another {entry.path}: run the recipe again")
    for working in sorted((root / "working").glob("*")):
        for each in checkpoints(working / CHECKPOINTS):
            _checkpoint(each, result)
    strange = sorted({path.name for path in root.iterdir()} - OWN)
    result.notes += [f"{root / name} is no file of a run" for name in strange]


def _artifact(folder: Path, result: Verified) -> Manifest | None:
    result.artifacts += 1
    try:
        manifest = read_manifest(folder)
    except DamagedError as error:
        result.damage.append(error.what)
        return None
    if manifest is None:
        result.damage.append(f"{folder / MANIFEST} is no file")
        return None
    if not manifest.seal:
        result.notes.append(f"{folder / MANIFEST} has no seal: an earlier herdlm made it")
    result.damage += _differences(folder, manifest, result)
    return manifest


def _differences(folder: Path, manifest: Manifest, result: Verified) -> Iterator[str]:
    for name, entry in manifest.files.items():
        path = folder / name
        result.files += 1
        if not path.is_file():
            yield f"{path} is missing"
        elif (size := path.stat().st_size) != entry.bytes:
            yield f"{path} has {size:,} bytes where its manifest says {entry.bytes:,}"
        elif hash_file(path) != entry.sha256:
            yield f"{path} is not what its manifest says"
        else:
            result.bytes += size
    for path in artifact_files(folder):
        if path.relative_to(folder).as_posix() not in manifest.files:
            yield f"{path} is not in the manifest"


def _checkpoint(folder: Path, result: Verified) -> None:
    result.checkpoints += 1
    try:
        state = read_seal(folder)
        if state.step != step_of(folder):
            result.damage.append(f"{folder} is of step {state.step}")
    except DamagedError as error:
        result.damage.append(error.what)
        return
    result.files += 1
    for name, expected in state.files.items():
        result.files += 1
        if hash_file(folder / name) != expected:
            result.damage.append(f"{folder / name} is not what was saved")
        else:
            result.bytes += (folder / name).stat().st_size
