"""Finds the lineage of an artifact, back to the files outside the run, and prints it for ``herdlm trace``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from herdlm.base.artifact import MANIFEST, read_manifest
from herdlm.base.errors import InputError
from herdlm.base.lineage import Origin, walk


def trace(path: Path) -> Origin:
    """The lineage of an artifact, or of a file in one.

    Raises:
        InputError: the path is not in an artifact.
        DamagedError: an ancestor is missing, or was remade after an artifact was made from it.
    """
    resolved = path.resolve()
    if not resolved.exists():
        raise InputError(f"{path} does not exist", "Give a path like RUN/models/flagship")
    if resolved.name == "report.html" and (resolved.parent / "stages" / "report").is_dir():
        resolved = resolved.parent / "stages" / "report"  # the page at the top is a copy
    folder = next((p for p in (resolved, *resolved.parents) if (p / MANIFEST).is_file()), None)
    if folder is None:
        raise InputError(
            f"{path} is not in an artifact: there is no {MANIFEST} in it or above",
            "Give a path like RUN/models/flagship",
        )
    manifest = read_manifest(folder)
    assert manifest is not None
    stage, stages = manifest.stage, folder.parent
    return walk(stage, lambda name: manifest if name == stage else read_manifest(stages / name))


def lines(origin: Origin) -> Iterator[str]:
    """A lineage as indented text, one artifact per line. Ancestors are listed under its first occurrence only."""
    return _lines(origin, 0, set())


def _lines(origin: Origin, depth: int, listed: set[str]) -> Iterator[str]:
    again = " (listed above)" if origin.path in listed else ""
    yield f"{'  ' * depth}{origin.path}  [{_kind(origin)}] sha256 {origin.content[:16]}{again}"
    if origin.manifest and not again:
        listed.add(origin.path)
        for source in origin.origins:
            yield from _lines(source, depth + 1, listed)


def as_json(origin: Origin, listed: set[str] | None = None) -> dict[str, Any]:
    """A lineage as JSON, with full hashes. ``seen`` marks an artifact whose ancestors were listed before."""
    listed = set() if listed is None else listed
    seen = origin.path in listed
    if origin.manifest:
        listed.add(origin.path)
    return {
        "path": origin.path,
        "kind": _kind(origin),
        "content": origin.content,
        "seconds": origin.manifest.seconds if origin.manifest else None,
        "seen": seen,
        "origins": [] if seen else [as_json(source, listed) for source in origin.origins],
    }


def _kind(origin: Origin) -> str:
    return origin.manifest.kind if origin.manifest else "source"
