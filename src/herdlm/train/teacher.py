"""Running a teacher over a run's data, once, so that the training which learns from it needs no second model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from herdlm.base.progress import Progress
from herdlm.model.losses import at_least_float
from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Batch, Batches
from herdlm.tokens.teacher import TaughtBatches, TeacherColumns, with_columns
from herdlm.train.objectives import hidden_states

TOKENS_AT_ONCE = 2**16  # in rows of one forward pass
LOGITS_AT_ONCE = 2**24  # by number


@torch.no_grad()
def teacher_columns(
    teacher: Transformer, batch: Batch, top_k: int, temperature: float, precision: str = "float32"
) -> tuple[Tensor, Tensor]:
    """The teacher's ``top_k`` most likely tokens at every target of a batch and their log-probabilities, [targets, K].

    They are those of softmax(logits / temperature) over the whole vocabulary, not of the k tokens alone. Whole logits
    exist for few targets at a time, hidden states for few rows. ``precision`` is that of the forward pass.
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
    """Run the teacher over the steps from ``first_step`` on that are not there yet; gives the batches with its columns.

    ``columns.key`` says how it is read. Of ``ranks`` processes that share the folder, each makes every n-th step: all
    must be done before any step is read. What is damaged or of other rows is made anew.
    """
    key = columns.key
    teacher.train(False)
    with Progress(title, batches.steps - first_step, "steps", quiet=quiet or rank > 0) as progress:
        for step in range(first_step + rank, batches.steps, ranks):
            given = batches.micro_batches(step)
            if not columns.has(step, given):
                found = [teacher_columns(teacher, b, key.top_k, key.temperature, key.precision) for b in given]
                ids, logprobs = (
                    np.concatenate([part.cpu().numpy() for part in parts]) for parts in zip(*found, strict=True)
                )
                columns.write(step, given, ids, logprobs)
            progress.advance(ranks)
    return TaughtBatches(batches, columns)
