"""Prepares pre-training from a teacher: checks that it suits the student, and computes its top-k columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from herdlm.base.errors import InputError
from herdlm.model.hf import load_folder
from herdlm.pretrain.job import PretrainJob
from herdlm.tokens.mixture import FirstSteps, PretrainBatches
from herdlm.tokens.teacher import TaughtBatches, TeacherColumns, TeacherKey
from herdlm.tokens.tokenizer import Tokenizer
from herdlm.train.teacher import Distill, teach


@dataclass(frozen=True, slots=True)
class Distillation:
    """A teacher's columns and the objective that uses them, from step ``first_step`` on."""

    columns: TeacherColumns
    objective: Distill
    first_step: int

    def batches(self, batches: PretrainBatches | FirstSteps) -> TaughtBatches:
        """The batches with the teacher's columns."""
        return TaughtBatches(batches, self.columns)


def open_distillation(
    job: PretrainJob,
    *,
    teacher: Path,
    content: str,
    batches: PretrainBatches,
    tokenizer: Tokenizer,
    work: Path,
    device: str,
    title: str,
) -> Distillation:
    """Run the teacher over the steps of ``batches`` that distill from it, and store its columns in ``work/teacher``.

    Every process calls this: each runs the whole teacher over its share of the steps, then frees it. Columns that an
    interrupted attempt left are reused.

    Args:
        content: content hash of the teacher's folder.

    Raises:
        InputError: the teacher's tokenizer differs, it supports only shorter rows, or it is not a language model.
    """
    config = job.distill
    assert config is not None
    key = TeacherKey(content, job.model.vocab_size, config.top_k, config.temperature, job.pretrain.train.autocast)
    columns = TeacherColumns(work / "teacher", key)
    first_step = job.pretrain.steps - job.pretrain.train.anneal_steps if config.steps == "anneal" else 0
    model = load_folder(teacher, device)
    shape, longest = model.config, max(job.pretrain.seq_lens)
    if shape.head != "lm":
        raise InputError(
            f"the teacher {teacher} is a reward model, without an output over tokens", "Give a language model"
        )
    if shape.vocab_size != job.model.vocab_size:
        raise InputError(
            f"the teacher {teacher} has a vocabulary of {shape.vocab_size:,}, but the student has "
            f"{job.model.vocab_size:,}",
            "Give a teacher with the student's vocabulary",
        )
    if Tokenizer.load(teacher).content() != tokenizer.content():
        raise InputError(
            f"the teacher {teacher} and the student have different tokenizers",
            "Give a teacher that was trained with this recipe's tokenizer",
        )
    if shape.max_seq_len < longest:
        raise InputError(
            f"the teacher {teacher} supports rows of {shape.max_seq_len:,} tokens, but the student's have {longest:,}",
            "Shorten the rows in [pretrain], or give another teacher",
        )
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    teach(model, batches, columns, first_step=first_step, rank=rank, ranks=ranks, title=f"{title}: teacher")
    if ranks > 1:
        dist.barrier()
    return Distillation(columns, Distill(config.weight, config.temperature), first_step)
