"""Forward passes of a model that is whole in this process, without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from herdlm.model.losses import target_logprobs
from herdlm.model.transformer import Transformer
from herdlm.tokens.batch import Batch
from herdlm.train.objectives import hidden_states


@torch.no_grad()
def batch_logprobs(model: Transformer, batch: Batch) -> Tensor:
    """The log-probability of every target, [B, T] float64 on the CPU; 0 where there is none."""
    moved = batch.to(next(model.parameters()).device)
    here = moved.target_places()
    values = target_logprobs(model, hidden_states(model, moved)[here], moved.targets.flatten()[here])
    found = torch.zeros(batch.tokens.shape, dtype=torch.float64)
    found.view(-1)[here.cpu()] = values.double().cpu()
    return found
