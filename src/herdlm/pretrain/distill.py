"""Prepares pre-training from a teacher: checks that it suits the student, and computes its top-k columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from herdlm.pretrain.job import PretrainJob
from herdlm.tokens.mixture import FirstSteps, PretrainBatches
from herdlm.tokens.teacher import TaughtBatches, TeacherColumns, TeacherKey
from herdlm.tokens.tokenizer import Tokenizer
from herdlm.train.teacher import Distill, open_columns, open_teacher, teach_together


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
    columns = open_columns(work / "teacher", key)
    first_step = job.pretrain.steps - job.pretrain.train.anneal_steps if config.steps == "anneal" else 0
    model = open_teacher(teacher, job.model, tokenizer, longest=max(job.pretrain.seq_lens), device=device)
    teach_together(model, batches, columns, first_step=first_step, title=f"{title}: teacher")
    return Distillation(columns, Distill(config.weight, config.temperature), first_step)
