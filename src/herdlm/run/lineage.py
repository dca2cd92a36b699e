"""Where an artefact came from: a walk over manifests back to the files outside the run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from herdlm.base.artefact import MANIFEST, Manifest, read_manifest
from herdlm.base.errors import DamagedError, InputError


@dataclass(slots=True)
class Origin:
    """One artefact or outside file with what it was made from. ``seen`` marks one whose origins were told before."""

    path: str
    kind: str
    content: str
    seconds: float | None = None
    seen: bool = False
    origins: list[Origin] = field(default_factory=list)


def trace(path: Path) -> Origin:
    """The lineage of an artefact, or of a file in one.

    Raises:
        InputError: the path is in no artefact.
        DamagedError: an artefact on the way is gone, or is not the one that was used.
    """
    resolved = path.resolve()
    if not resolved.exists():
        raise InputError(f"{path} does not exist", "Give a path like RUN/models/flagship")
    if resolved.name == "report.html" and (resolved.parent / "stages" / "report").is_dir():
        resolved = resolved.parent / "stages" / "report"  # the page at the top is a copy
    folder = next((p for p in (resolved, *resolved.parents) if (p / MANIFEST).is_file()), None)
    if folder is None:
        raise InputError(
            f"{path} is in no artefact: no {MANIFEST} there or above", "Give a path like RUN/models/flagship"
        )
    manifest = read_manifest(folder)
    assert manifest is not None
    return _origin(folder, manifest, folder.parent.parent, set())


def _origin(folder: Path, manifest: Manifest, root: Path, seen: set[str]) -> Origin:
    origin = Origin(f"stages/{manifest.stage}", manifest.kind, manifest.content, manifest.seconds)
    key = f"{manifest.stage} {manifest.content}"
    if key in seen:
        origin.seen = True
        return origin
    seen.add(key)
    for entry in manifest.inputs.values():
        if not entry.path.startswith("stages/"):
            origin.origins.append(Origin(entry.path, "source", entry.content))
            continue
        source = read_manifest(root / entry.path)
        if source is None:
            raise DamagedError(f"{root / entry.path} is gone, of which {folder} was made", "Run the recipe again")
        if source.content != entry.content:
            raise DamagedError(
                f"{root / entry.path} was made anew since {folder} was made from it", "Run the recipe to its end"
            )
        origin.origins.append(_origin(root / entry.path, source, root, seen))
    return origin


def lines(origin: Origin, depth: int = 0) -> Iterator[str]:
    """A lineage as indented text, an artefact a line."""
    again = " (told above)" if origin.seen else ""
    yield f"{'  ' * depth}{origin.path}  [{origin.kind}] sha256 {origin.content[:16]}{again}"
    for source in origin.origins:
        yield from lines(source, depth + 1)


def as_json(origin: Origin) -> dict[str, object]:
    """A lineage as JSON, with whole hashes."""
    return {
        "path": origin.path,
        "kind": origin.kind,
        "content": origin.content,
        "seconds": origin.seconds,
        "seen": origin.seen,
        "origins": [as_json(source) for source in origin.origins],
    }
