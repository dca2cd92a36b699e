"""The teacher of a fine-tuning: who it is, and whether the settings go with it."""

from __future__ import annotations

from pathlib import Path

from herdlm.align.config import PairsConfig, SftConfig
from herdlm.base.artifact import InputEntry, hash_json
from herdlm.base.errors import InputError
from herdlm.base.standalone import input_folder
from herdlm.model.start import open_start

TEACHER, BASE = "teacher", "teacher-base"  # roles among a job's inputs


def check_teacher(teacher: Path | None, config: SftConfig | PairsConfig) -> None:
    """Refuse a teacher without settings, and settings without a teacher.

    Raises:
        InputError: there is one without the other.
    """
    distill = config.distill if isinstance(config, SftConfig) else None
    if distill is not None and teacher is None:
        raise InputError("distill is set, but there is no teacher", "Give --teacher MODEL, or drop the section distill")
    if distill is None and teacher is not None:
        raise InputError(f"nothing says how to learn from the teacher {teacher}", "Set the section distill")


def teacher_inputs(path: Path) -> dict[str, InputEntry]:
    """The folder of a teacher and, if it is a LoRA adapter, that of its base, by role.

    Raises:
        InputError, DamagedError: there is no model.
    """
    start = open_start(path)
    base = {} if start.adapter is None else {BASE: input_folder(start.folder)}
    return {TEACHER: input_folder(start.adapter or start.folder)} | base


def content_of(inputs: dict[str, InputEntry]) -> str | None:
    """What identifies the teacher among a job's inputs; None without one."""
    contents = [inputs[role].content for role in (TEACHER, BASE) if role in inputs]
    return hash_json(contents) if contents else None
