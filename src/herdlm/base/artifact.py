"""Artifacts: folders that exist whole or not at all, each with a manifest that records how it was made.

A stage writes into a working folder beside the final one; :func:`publish` hashes its files, writes ``manifest.json``
and renames the folder into place. herdlm ignores folders without a manifest. A manifest names its inputs by content
hash; see :mod:`herdlm.base.lineage`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from herdlm.base.errors import DamagedError, InputError

MANIFEST = "manifest.json"
VOLATILE = ("events.jsonl", "timing.json", "tensorboard/")  # contain times, so they differ between equal results


class FileEntry(BaseModel):
    """One file of an artifact: its size in bytes and the SHA-256 of its content."""

    bytes: int
    sha256: str


class InputEntry(BaseModel):
    """One input of an artifact: its path and its content hash at that time."""

    path: str
    content: str


class Manifest(BaseModel):
    """What an artifact is, and what it was made from."""

    model_config = ConfigDict(extra="forbid")

    kind: str
    stage: str
    fingerprint: str
    content: str
    inputs: dict[str, InputEntry]
    after: dict[str, str] = {}  # content hashes of stages that had to finish before, but are not inputs
    recipe: dict[str, Any]
    code: dict[str, str]
    seeds: dict[str, int]
    counts: dict[str, Any]
    seconds: float
    files: dict[str, FileEntry]


def hash_bytes(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, which does not depend on the order of keys."""
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def file_name(name: str) -> str:
    """A name as a file's or a folder's. Names that differ only in what no file can be called stay apart."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-") or "unnamed"
    return plain if plain == name else f"{plain}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:6]}"


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def artifact_files(folder: Path) -> Iterator[Path]:
    """The files of an artifact, except its manifest, in a fixed order."""
    return (p for p in sorted(folder.rglob("*")) if p.is_file() and p != folder / MANIFEST)


def publish(
    working: Path,
    final: Path,
    *,
    kind: str,
    stage: str,
    fingerprint: str,
    inputs: dict[str, InputEntry],
    after: dict[str, str] | None = None,
    recipe: dict[str, Any],
    seeds: dict[str, int],
    counts: dict[str, Any],
    seconds: float,
    code: dict[str, str],
    volatile: tuple[str, ...] = (),
) -> Manifest:
    """Write the manifest of ``working`` and rename it to ``final``, replacing an older artifact there.

    Files named in ``volatile`` (logs that contain times; the name of a folder ends with "/") are published and hashed,
    but not part of the content hash, so that equal results have equal hashes.
    """
    files = {
        str(path.relative_to(working)): FileEntry(bytes=path.stat().st_size, sha256=hash_file(path))
        for path in artifact_files(working)
    }
    folders = tuple(name for name in volatile if name.endswith("/"))
    lasting = {name: entry for name, entry in files.items() if name not in volatile and not name.startswith(folders)}
    content = hash_json({name: entry.sha256 for name, entry in lasting.items()})
    manifest = Manifest(
        kind=kind,
        stage=stage,
        fingerprint=fingerprint,
        content=content,
        inputs=inputs,
        after=after or {},
        recipe=recipe,
        code=code,
        seeds=seeds,
        counts=counts,
        seconds=round(seconds, 3),
        files=files,
    )
    write_text_durably(working / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
        replaced = final.with_name(f".replaced-{final.name}")
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)
        working.rename(final)
        shutil.rmtree(replaced)
    else:
        working.rename(final)
    sync_folder(final.parent)
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an artifact, or None if there is no artifact.

    Raises:
        DamagedError: the manifest exists but cannot be read.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise DamagedError(f"{path} is not a valid manifest", f"Delete {folder} and run the recipe again") from error


def verify(folder: Path, manifest: Manifest, *, hashes: bool = True) -> None:
    """Check that all files of an artifact exist and are unchanged (``hashes=False``: existence and size only).

    Raises:
        DamagedError: with the first file that differs.
    """
    remedy = f"Delete {folder} and run the recipe again"
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise DamagedError(f"{path} is missing", remedy)
        size = path.stat().st_size
        if size != entry.bytes:
            raise DamagedError(f"{path} is damaged: {size:,} bytes where its manifest says {entry.bytes:,}", remedy)
        if hashes and hash_file(path) != entry.sha256:
            raise DamagedError(f"{path} is damaged: its content is not what its manifest says", remedy)


def write_text_durably(path: Path, text: str) -> None:
    """As :func:`write_durably`, of text in UTF-8."""
    write_durably(path, text.encode())


def write_durably(path: Path, data: bytes) -> None:
    """Write a file atomically: under a temporary name, flushed to disk, then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_file(path: Path, what: str) -> Path:
    """Return ``path`` if it is a file.

    Raises:
        InputError: it does not exist.
    """
    if not path.is_file():
        raise InputError(f"{what} {path} does not exist", "Check the path")
    return path
