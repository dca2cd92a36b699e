"""Forward passes over held-out rows, of a model in this process or sharded over several.

For a sharded model every process makes the same call and gets the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from herdlm.model.config import ModelConfig
from herdlm.model.losses import target_logprobs
from herdlm.model.transformer import Transformer
from herdlm.parallel.model import ParallelModel
from herdlm.tokens.batch import Batch
from herdlm.train.objectives import hidden_states

Model = Transformer | ParallelModel
ROUNDS = 4  # pipeline rounds that are evaluated at a time


class _OutputHead(Protocol):
    def target_logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor: ...

    def most_likely(self, hidden: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class _WholeOutputHead:
    """The counterpart of :class:`herdlm.parallel.output_head.ShardedOutputHead`."""

    model: Transformer

    def target_logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return target_logprobs(self.model, hidden, targets)

    def most_likely(self, hidden: Tensor) -> Tensor:
        return self.model.logits(hidden).argmax(-1)


def config_of(model: Model) -> ModelConfig:
    """The shape of the whole model."""
    return model.shape if isinstance(model, ParallelModel) else model.config


def row_pieces(model: Model) -> int:
    """The number that the length of rows must be a multiple of."""
    return model.mesh.sizes.row_pieces if isinstance(model, ParallelModel) else 1


def token_logprobs(model: Model, batches: Sequence[Batch], *, temperature: float = 1.0) -> Iterator[Tensor]:
    """For each batch the log-probability of every target, [B, T] float64 on the CPU; 0 where the weight is 0.

    Args:
        temperature: logits are divided by it.
    """

    def read(output_head: _OutputHead, hidden: Tensor, targets: Tensor) -> Tensor:
        return output_head.target_logprobs(hidden / temperature, targets)

    if not isinstance(model, ParallelModel):
        yield from (_whole(model, batch, read) for batch in batches)
        return
    rest = iter(batches)
    while several := list(islice(rest, ROUNDS * model.mesh.sizes.pp)):
        yield from model.values(several, read)


def likeliest_tokens(model: Model, batch: Batch) -> Tensor:
    """The most likely next token wherever the weight is above 0, [B, T] int64 on the CPU; 0 elsewhere."""

    def read(output_head: _OutputHead, hidden: Tensor, targets: Tensor) -> Tensor:
        return output_head.most_likely(hidden)

    found = model.values([batch], read)[0] if isinstance(model, ParallelModel) else _whole(model, batch, read)
    return found.long()


@torch.no_grad()
def _whole(model: Transformer, batch: Batch, read: Callable[[_OutputHead, Tensor, Tensor], Tensor]) -> Tensor:
    here = batch.weights > 0
    moved = batch.to(next(model.parameters()).device)
    asked = here.to(moved.tokens.device)
    values = read(_WholeOutputHead(model), hidden_states(model, moved)[asked.flatten()], moved.targets[asked])
    found = torch.zeros(here.shape, dtype=torch.float64)
    found[here] = values.double().cpu()
    return found
