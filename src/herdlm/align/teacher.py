"""The teacher of a fine-tuning: who it is, whether the settings go with it, and what is learned from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from herdlm.align.config import SftConfig
from herdlm.base.artifact import InputEntry, hash_json
from herdlm.base.errors import InputError
from herdlm.base.recipe import Section
from herdlm.base.standalone import input_folder
from herdlm.model.config import ModelConfig
from herdlm.model.start import open_start
from herdlm.tokens.batch import Batches
from herdlm.tokens.teacher import TeacherKey
from herdlm.tokens.tokenizer import Tokenizer
from herdlm.train.objectives import NextToken, Objective
from herdlm.train.teacher import Distill, open_columns, open_teacher, teach_together

TEACHER, BASE = "teacher", "teacher-base"  # roles among a job's inputs


def check_teacher(teacher: Path | None, config: Section) -> None:
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


def learn_from(
    teacher: Path | None,
    batches: Batches,
    config: SftConfig,
    *,
    content: str | None,
    student: ModelConfig,
    tokenizer: Tokenizer,
    work: Path,
    device: torch.device | str,
    say: Callable[[str], None],
    quiet: bool,
) -> tuple[Batches, Objective]:
    """What is learned: the batches as they are, or with the distribution of a teacher, which reads them once.

    Every process calls this before the student takes memory; the teacher has none afterwards. What it said of a step
    is kept in ``work``, so that a resumed run asks it about the others alone.

    Args:
        content: what identifies the teacher's weights.
        tokenizer: the student's.

    Raises:
        InputError: the teacher's vocabulary, tokenizer or context does not fit.
    """
    distill = config.distill
    if distill is None or teacher is None or content is None:
        return batches, NextToken()
    if distill.top_k > student.vocab_size:
        raise InputError(f"distill.top_k {distill.top_k} exceeds the vocabulary of {student.vocab_size:,}", "Lower it")
    model = open_teacher(teacher, student, tokenizer, longest=config.seq_len, device=device)
    key = TeacherKey(content, student.vocab_size, distill.top_k, distill.temperature, config.train.autocast)
    say(
        f"Teacher: {teacher}, {distill.weight:g} of the loss at temperature {distill.temperature:g}, its "
        f"{distill.top_k} most likely tokens"
    )
    taught = teach_together(model, batches, open_columns(work / "teacher", key), quiet=quiet)
    return taught, Distill(distill.weight, distill.temperature)
