"""The attention slot: what a layer calls with its queries, keys and values.

The Transformer never attends itself; it calls an :class:`Attend`. Training plugs in :class:`DocumentAttention`,
generation a paged cache, context parallelism an all-gather around either.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Attend(Protocol):
    """Attention over whatever context the caller holds."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, T, H, C], k and v [B, T, K, C] of layer number ``layer``; returns [B, T, H, C]."""
        ...


class DocumentAttention:
    """Causal attention that never crosses a document boundary inside a packed row.

    Args:
        documents: [B, T] integers; a token attends to earlier tokens of its row with the same number. The numbers of
            one row never decrease.

    Rows of one document each need no mask at all. Short rows take a dense mask; from ``LOOP_FROM`` tokens on, one call
    per document does less work than a mask over the row (3 to 5 x at 2,048 tokens on a CPU).
    """

    LOOP_FROM = 512

    def __init__(self, documents: Tensor) -> None:
        rows, length = documents.shape
        starts = torch.ones_like(documents, dtype=torch.bool)
        starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
        self.one_each = int(starts.sum()) == rows
        self.mask: Tensor | None = None
        self.spans: list[tuple[int, int, int]] = []
        if self.one_each:
            return
        if length < self.LOOP_FROM:
            same = documents[:, :, None] == documents[:, None, :]
            self.mask = (same & torch.ones(length, length, dtype=torch.bool, device=same.device).tril())[:, None]
        else:
            for row, flags in enumerate(starts.cpu()):
                edges = [*flags.nonzero().flatten().tolist(), length]
                self.spans += [(row, begin, end) for begin, end in pairwise(edges)]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See :class:`Attend`."""
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        grouped = q.shape[1] != k.shape[1]
        if self.one_each:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        elif self.mask is not None:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, enable_gqa=grouped)
        else:
            pieces: list[list[Tensor]] = [[] for _ in range(q.shape[0])]
            for row, begin, end in self.spans:
                at = (slice(row, row + 1), slice(None), slice(begin, end))
                attended = F.scaled_dot_product_attention(q[at], k[at], v[at], is_causal=True, enable_gqa=grouped)
                pieces[row].append(attended)
            out = torch.cat([torch.cat(row, dim=2) for row in pieces], dim=0)
        return out.transpose(1, 2)
