"""Runs one stage's work outside of a run: resumable, and published as an artifact where the user wants it."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import herdlm
from herdlm.base.artifact import (
    VOLATILE,
    InputEntry,
    artifact_files,
    hash_file,
    hash_json,
    publish,
    read_manifest,
    write_text_durably,
)
from herdlm.base.errors import InputError


class ClaimedError(InputError):
    """Another process is writing the folder."""


UNDONE = {"fingerprint", "out", "date"}  # what lies in a working folder before any work is done that could resume


def input_folder(folder: Path) -> InputEntry:
    """A folder or file as an input: identified by its manifest's content hash if it has one, else by its files.

    Raises:
        InputError: it does not exist.
    """
    if not folder.exists():
        raise InputError(f"{folder} does not exist", "Check the path")
    if folder.is_file():
        return InputEntry(path=str(folder), content=hash_file(folder))
    manifest = read_manifest(folder)
    if manifest:
        return InputEntry(path=str(folder), content=manifest.content)
    files = {str(path.relative_to(folder)): hash_file(path) for path in artifact_files(folder)}
    return InputEntry(path=str(folder), content=hash_json(files))


@contextmanager
def standalone(
    out: Path,
    *,
    kind: str,
    name: str,
    settings: dict[str, Any],
    inputs: dict[str, InputEntry],
    seed: int,
    counts: dict[str, Any] | None = None,
    free: Collection[str] = (),
) -> Iterator[tuple[Path, Path, dict[str, Any]]]:
    """Yields an empty folder to write into, a folder that survives interruptions, and counts to fill in.

    Publishes ``out`` at the end. An interrupted call resumes if kind, name, inputs, seed and settings are the same. One
    that fails before it has done anything leaves nothing behind.

    Args:
        free: keys of ``settings`` that may differ when a call resumes.

    Raises:
        InputError: ``out`` exists.
        ClaimedError: another process is writing it.
    """
    if out.exists():
        raise InputError(f"{out} exists", "Choose a new folder")
    work = out.with_name(f".{out.name}.working")
    work.mkdir(parents=True, exist_ok=True)
    contents = {role: entry.content for role, entry in inputs.items()}
    making = {"kind": kind, "name": name, "settings": settings, "inputs": contents, "seed": seed}
    fingerprint = hash_json(making)
    same = hash_json(making | {"settings": {key: value for key, value in settings.items() if key not in free}})
    mark, made, started = work / "fingerprint", work / "out", time.monotonic()
    with (work.parent / f".{out.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClaimedError(f"another process is writing {out}", "Wait for it, or choose another folder") from None
        if not (mark.is_file() and mark.read_text(encoding="utf-8") == same):
            shutil.rmtree(work)
            work.mkdir()
            write_text_durably(mark, same)
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        counts = {} if counts is None else counts
        try:
            yield made, work, counts
        except BaseException:
            if {path.name for path in work.iterdir()} <= UNDONE:
                shutil.rmtree(work)
                Path(lock.name).unlink(missing_ok=True)
            raise
        publish(
            made,
            out,
            kind=kind,
            stage=name,
            fingerprint=fingerprint,
            inputs=inputs,
            recipe=settings,
            seeds={"stage": seed},
            counts=counts,
            seconds=time.monotonic() - started,
            code={"herdlm": herdlm.__version__},
            volatile=VOLATILE,
        )
        shutil.rmtree(work)
    Path(lock.name).unlink(missing_ok=True)
