"""Pre-training from a teacher: checked against the recipe, and its columns made before the training begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from herdlm.base.errors import InputError
from herdlm.model.hf import load_folder
from herdlm.recipe import Recipe
from herdlm.tokens.mixture import FirstSteps, PretrainBatches
from herdlm.tokens.teacher import TaughtBatches, TeacherColumns, TeacherKey
from herdlm.tokens.tokenizer import Tokenizer
from herdlm.train.teacher import Distill, teach


@dataclass(frozen=True, slots=True)
class Teaching:
    """What a model is taught with from step ``first_step`` on."""

    columns: TeacherColumns
    objective: Distill
    first_step: int

    def batches(self, batches: PretrainBatches | FirstSteps) -> TaughtBatches:
        """The batches with the teacher's columns."""
        return TaughtBatches(batches, self.columns)


def open_teaching(
    recipe: Recipe,
    name: str,
    *,
    teacher: Path,
    content: str,
    batches: PretrainBatches,
    words: Tokenizer,
    work: Path,
    device: str,
    title: str,
) -> Teaching:
    """Run the teacher over all steps of ``batches`` that it teaches in; its columns are in ``work/teacher``.

    A call for all processes: each runs the whole teacher over its share of the steps, and then lets go of it. What an
    earlier try left is used.

    Args:
        content: the hash of the teacher's folder.

    Raises:
        InputError: the teacher knows other tokens or shorter rows, has no tokenizer, or is no language model.
    """
    config = recipe.herd.models[name].distill
    assert config is not None
    key = TeacherKey(content, words.vocab_size, config.top_k, config.temperature, recipe.pretrain.train.autocast)
    columns = TeacherColumns(work / "teacher", key)
    first_step = recipe.pretrain.steps - recipe.pretrain.train.anneal_steps if config.steps == "anneal" else 0
    model = load_folder(teacher, device)
    shape, longest = model.config, max(recipe.pretrain.seq_lens)
    if shape.head != "lm":
        raise InputError(f"{teacher} is a reward model: it has no distribution of tokens", "Give a language model")
    if shape.vocab_size != words.vocab_size:
        raise InputError(
            f"the teacher {teacher} has a vocabulary of {shape.vocab_size:,}, tokenizer.vocab_size is "
            f"{words.vocab_size:,}",
            "Teacher and pupil must know the same tokens",
        )
    if Tokenizer.load(teacher).content() != words.content():
        raise InputError(
            f"the teacher {teacher} has another tokenizer than the pupil", "Teacher and pupil must know the same tokens"
        )
    if shape.max_seq_len < longest:
        raise InputError(
            f"the teacher {teacher} knows rows of {shape.max_seq_len:,} tokens, the pupil's have {longest:,}",
            "Shorten the pupil's rows, or give another teacher",
        )
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    teach(model, batches, columns, first_step=first_step, rank=rank, ranks=ranks, title=f"{title}: teacher")
    if ranks > 1:
        dist.barrier()
    return Teaching(columns, Distill(config.weight, config.temperature), first_step)
