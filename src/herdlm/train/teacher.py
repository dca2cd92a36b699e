"""Learning from a teacher: the student's objective, and the one run of the teacher over the data that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from herdlm.base.errors import InputError
from herdlm.base.progress import Progress
from herdlm.model.config import ModelConfig
from herdlm.model.distillation import Distillation
from herdlm.model.hf import load_folder
from herdlm.model.losses import at_least_float
from herdlm.model.start import open_start
from herdlm.model.transformer import Transformer
from herdlm.parallel.processes import from_first, meet
from herdlm.tokens.batch import Batch, Batches
from herdlm.tokens.teacher import TEACHER_COLUMNS, TaughtBatches, TeacherColumns, TeacherKey, with_columns
from herdlm.tokens.tokenizer import Tokenizer
from herdlm.train.objectives import Objective, OutputHead, hidden_states

TOKENS_AT_ONCE = 2**16  # tokens of one forward pass
LOGITS_AT_ONCE = 2**24  # logits that exist at a time


@dataclass(frozen=True, slots=True)
class Distill(Objective):
    """A student learns the next token and a teacher's distribution of it.

    The teacher is not in memory: the columns ``teacher_ids`` and ``teacher_logprobs`` of the data, [B, T, K], hold its
    K most likely tokens at every target and their log-probabilities at ``temperature``. ``weight`` is the teacher's
    share of the loss; see :class:`herdlm.model.distillation.Distillation`.
    """

    weight: float = 0.5
    temperature: float = 1.0

    def normalizer(self, batch: Batch) -> float:
        """The weight of all targets."""
        return float(batch.weights.sum(dtype=torch.float64))

    def read(self, output_head: OutputHead, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Objective`; logs the divergence from the teacher and the next-token loss, in nats per target."""
        weights, here = batch.weights.flatten(), batch.target_places()
        ids, logprobs = (batch.columns[name].flatten(0, 1)[here] for name in TEACHER_COLUMNS)
        values, targets, divergence = output_head.distilled(
            hidden[here], batch.targets.flatten()[here], ids, logprobs, Distillation(self.weight, self.temperature)
        )
        counted = weights[here]
        logged = {"teacher_kl": (divergence * counted).sum(), "next_token_loss": -(targets * counted).sum()}
        return -(values * counted).sum(), logged


@torch.no_grad()
def teacher_columns(
    teacher: Transformer, batch: Batch, top_k: int, temperature: float, precision: str = "float32"
) -> tuple[Tensor, Tensor]:
    """The teacher's ``top_k`` most likely tokens at every target of a batch and their log-probabilities, [targets, K].

    The probabilities are softmax(logits / temperature) over the whole vocabulary, not over the k tokens alone. Hidden
    states are computed for a few rows at a time and logits for a few targets, in ``precision``.
    """
    device = next(teacher.parameters()).device
    ids, logprobs = [], []
    rows_at_once = max(TOKENS_AT_ONCE // batch.tokens.shape[1], 1)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        for first in range(0, len(batch.tokens), rows_at_once):
            now = slice(first, first + rows_at_once)
            rows = Batch(
                batch.tokens[now], batch.targets[now], batch.weights[now], batch.documents[now], batch.positions[now]
            ).to(device)
            hidden = hidden_states(teacher, rows)[rows.target_places()]
            for some in torch.split(hidden, max(LOGITS_AT_ONCE // teacher.config.vocab_size, 1)):
                scores = at_least_float(teacher.logits(some)) / temperature
                best, tokens = torch.log_softmax(scores, -1).topk(top_k)
                ids.append(tokens)
                logprobs.append(best)
    return torch.cat(ids), torch.cat(logprobs)


def taught(teacher: Transformer, batch: Batch, top_k: int, temperature: float, precision: str = "float32") -> Batch:
    """The batch with the columns of :func:`teacher_columns`."""
    ids, logprobs = teacher_columns(teacher, batch, top_k, temperature, precision)
    return with_columns(batch, ids.to(batch.tokens.device), logprobs.to(batch.tokens.device))


def open_teacher(
    path: Path, student: ModelConfig, tokenizer: Tokenizer, *, longest: int, device: torch.device | str
) -> Transformer:
    """The teacher at ``path``: a model folder, a run (its flagship) or a LoRA adapter with its base.

    Args:
        tokenizer: the student's.
        longest: tokens in the longest row.

    Raises:
        InputError: its tokenizer or vocabulary is not the student's, it reads only shorter rows, or it is no language
            model.
    """
    start = open_start(path)
    if start.head != "lm":
        raise InputError(
            f"the teacher {path} is a reward model, without an output over tokens", "Give a language model"
        )
    if start.shape.vocab_size != student.vocab_size:
        raise InputError(
            f"the teacher {path} has a vocabulary of {start.shape.vocab_size:,}, but the student has "
            f"{student.vocab_size:,}",
            "Give a teacher with the student's vocabulary",
        )
    if Tokenizer.load(start.tokenizer).content() != tokenizer.content():
        raise InputError(
            f"the teacher {path} and the student have different tokenizers",
            "Give a teacher with the student's tokenizer",
        )
    if start.shape.max_seq_len < longest:
        raise InputError(
            f"the teacher {path} supports rows of {start.shape.max_seq_len:,} tokens, but the student's have "
            f"{longest:,}",
            "Shorten the rows, or give another teacher",
        )
    return load_folder(start.folder, device) if start.adapter is None else start.load(device)


def teach(
    teacher: Transformer,
    batches: Batches,
    columns: TeacherColumns,
    *,
    first_step: int = 0,
    rank: int = 0,
    ranks: int = 1,
    title: str = "teacher",
    quiet: bool = False,
) -> TaughtBatches:
    """Run the teacher over all steps from ``first_step`` on that ``columns`` lacks; returns the batches with columns.

    ``ranks`` processes may share the folder: each computes every ``ranks``-th step, and all must finish before a step
    is read. Columns that are damaged, or that belong to other rows, are computed again.
    """
    key = columns.key
    teacher.train(False)
    with Progress(title, batches.steps - first_step, "steps", quiet=quiet or rank > 0) as progress:
        for step in range(first_step + rank, batches.steps, ranks):
            given = batches.micro_batches(step)
            if not columns.has(step, given):
                computed = [teacher_columns(teacher, b, key.top_k, key.temperature, key.precision) for b in given]
                ids, logprobs = (
                    np.concatenate([part.cpu().numpy() for part in parts]) for parts in zip(*computed, strict=True)
                )
                columns.write(step, given, ids, logprobs)
            progress.advance(ranks)
    return TaughtBatches(batches, columns)


def open_columns(folder: Path, key: TeacherKey) -> TeacherColumns:
    """As :class:`TeacherColumns`, on every process of a run; the first one creates the folder."""

    def create() -> None:
        TeacherColumns(folder, key)

    from_first(create)
    return TeacherColumns(folder, key)


def teach_together(
    teacher: Transformer,
    batches: Batches,
    columns: TeacherColumns,
    *,
    first_step: int = 0,
    title: str = "teacher",
    quiet: bool = False,
) -> TaughtBatches:
    """As :func:`teach`, with the work divided among all processes of a run, which call this together."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    taught = teach(teacher, batches, columns, first_step=first_step, rank=rank, ranks=ranks, title=title, quiet=quiet)
    meet()
    return taught
