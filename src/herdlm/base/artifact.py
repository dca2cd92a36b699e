"""Artifacts: folders that exist whole or not at all, each with a manifest that records how it was made.

A stage writes into a working folder beside the final one; :func:`publish` hashes its files, writes ``manifest.json``
and renames the folder into place. herdlm ignores folders without a manifest. A manifest names its inputs by content
hash; see :mod:`herdlm.base.lineage`.

Readers compare what they read with the manifest (:func:`check_listed`, :class:`FileCheck`), unless the environment
variable ``HERDLM_VERIFY`` is "off".
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from herdlm.base.errors import DamagedError, InputError

MANIFEST = "manifest.json"
VERIFY = "HERDLM_VERIFY"  # an environment variable; "off": readers do not compare files with their manifests
LEFTOVER = re.compile(r"\..+\.(tmp|partial)")  # a file that a killed process was writing
MANIFEST_BYTES = 256 * 2**20
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
    seal: str = ""  # hash of all the others; empty in manifests of herdlm 0.1

    def sealed(self) -> Manifest:
        """With the hash of everything else in it."""
        return self.model_copy(update={"seal": self._hash()})

    def broken(self) -> bool:
        """Whether something differs from what was sealed."""
        return bool(self.seal) and self.seal != self._hash()

    def _hash(self) -> str:
        return hash_json(json.loads(self.model_dump_json(exclude={"seal"})))  # as it reads back: NaN is null there


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
    but not part of the content hash, so that equal results have equal hashes. Files that a killed process was writing
    are removed.

    Raises:
        InputError: ``final`` is not an artifact, but somebody's files.
    """
    refuse_foreign(final)
    for leftover in [path for path in artifact_files(working) if LEFTOVER.fullmatch(path.name)]:
        leftover.unlink()
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
    ).sealed()
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


def refuse_foreign(folder: Path) -> None:
    """Refuse to replace a folder or file that is not an artifact.

    Raises:
        InputError: it holds files and no manifest.
    """
    if (folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file()) or folder.is_file():
        raise InputError(
            f"{folder} holds files that herdlm did not make (it has no {MANIFEST})",
            "Move it away, or choose another --out",
        )


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an artifact, or None if there is no artifact.

    Raises:
        DamagedError: the manifest exists but cannot be read, or is not what was written.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    remedy = f"Delete {folder} and run the recipe again"
    try:
        if path.stat().st_size > MANIFEST_BYTES:
            raise DamagedError(f"{path} has more than {MANIFEST_BYTES:,} bytes", remedy)
        manifest = Manifest.model_validate_json(path.read_bytes())
        broken = manifest.broken()
    except (ValueError, OSError) as error:
        raise DamagedError(f"{path} is not a valid manifest", remedy) from error
    if broken:
        raise DamagedError(f"{path} is not what was written: its seal does not fit", remedy)
    return manifest


@lru_cache(maxsize=64)
def _manifest_at(folder: Path, stamp: tuple[int, int, int]) -> Manifest | None:
    return read_manifest(folder)


def listed(path: Path) -> FileEntry | None:
    """What the manifest of a file's folder, or of the folder above, says of the file; None if neither lists it.

    Raises:
        DamagedError: the manifest is damaged.
    """
    if os.environ.get(VERIFY) == "off":
        return None
    for folder in (path.parent, path.parent.parent):
        try:
            status = (folder / MANIFEST).stat()
        except (OSError, ValueError):
            continue
        try:
            manifest = _manifest_at(folder, (status.st_mtime_ns, status.st_size, status.st_ino))
        except DamagedError:
            if _looks_ours(folder / MANIFEST):
                raise
            continue  # another tool's file of that name
        entry = manifest.files.get(path.relative_to(folder).as_posix()) if manifest else None
        if entry is not None:
            return entry
    return None


def _looks_ours(manifest: Path) -> bool:
    with manifest.open("rb") as file:
        return b'"fingerprint"' in file.read(4096)


def check_listed(path: Path, data: bytes) -> None:
    """Compare a file's bytes with what its folder's manifest says, if that lists it.

    Raises:
        DamagedError: they differ.
    """
    entry = listed(path)
    if entry is not None and (entry.bytes != len(data) or entry.sha256 != hash_bytes(data)):
        raise _differs(path)


class FileCheck:
    """Compares a large file with its manifest, at the first :meth:`wait`, which also starts the file after this one.

    Args:
        before: the check of the file that is read before this one.
    """

    def __init__(self, path: Path, *, before: FileCheck | None = None) -> None:
        self.path, self.entry = path, listed(path)
        self._next: FileCheck | None = None
        self._thread: threading.Thread | None = None
        self._found: str | OSError = ""
        if before is not None:
            before._next = self

    def start(self) -> None:
        """Begin to hash the file in a thread, which also reads it into memory, if a manifest lists it."""
        if self.entry is not None and self._thread is None:
            self._thread = threading.Thread(target=self._hash, daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait until the file is hashed.

        Raises:
            DamagedError: it is not what its manifest says.
        """
        if self.entry is None:
            return
        self.start()
        if self._next:
            self._next.start()
        assert self._thread
        self._thread.join()
        if self._found != self.entry.sha256:
            raise _differs(self.path)

    def _hash(self) -> None:
        try:
            self._found = hash_file(self.path)
        except OSError as error:
            self._found = error


def _differs(path: Path) -> DamagedError:
    return DamagedError(
        f"{path} is damaged: its content is not what its manifest says",
        f"Make its folder again. If the change is yours, delete {MANIFEST} there: then it is a folder like any other",
    )


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
