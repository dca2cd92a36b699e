"""Embeddings of texts, from a pass through the model that does not touch the engine's cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from herdlm.generate.parallel import DriverTransformer
from herdlm.model.attention import DocumentAttention
from herdlm.model.transformer import Transformer


@torch.inference_mode()
def embedding(model: Transformer, tokens: Sequence[int]) -> list[float]:
    """The mean over ``tokens`` of the hidden states after the final norm, scaled to length 1, [D]."""
    mean = _hidden(model, tokens).double().mean(dim=0)
    unit: list[float] = (mean / mean.norm().clamp_min(1e-12)).tolist()
    return unit


def _hidden(model: Transformer, tokens: Sequence[int]) -> Tensor:
    if isinstance(model, DriverTransformer):
        return model.encode(tokens)
    row = torch.tensor(tokens, device=model.model.embed_tokens.weight.device)[None]
    positions = torch.arange(row.shape[1], device=row.device)[None]
    hidden: Tensor = model(row, positions, DocumentAttention(torch.zeros_like(row)))[0]
    return hidden
