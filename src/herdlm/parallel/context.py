"""Context parallelism by all-gather of keys and values (Llama 3 report, section 3.3.2).

A row is cut into 2 n chunks, and rank r holds chunks r and 2 n - 1 - r: under a causal mask every rank then has the
same work. Queries stay in place; keys and values, few under grouped-query attention, are gathered.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from herdlm.model.attention import to_device
from herdlm.parallel.collectives import autograd_all_gather

MASK_BELOW = 512  # the row length up to which a dense mask is faster than a call per document


def places_of(rank: int, ranks: int, length: int) -> Tensor:
    """The indices in a row of ``length`` tokens that a rank holds, in its order, [length / ranks]."""
    chunk = length // (2 * ranks)
    held = (rank, 2 * ranks - 1 - rank)
    return torch.cat([torch.arange(c * chunk, (c + 1) * chunk) for c in held])


class ContextAttention:
    """An :class:`herdlm.model.attention.Attend` for this rank's queries over every rank's keys and values.

    Args:
        documents: [B, T] of the whole rows, as for :class:`herdlm.model.attention.DocumentAttention`, on the CPU.
        device: that of queries, keys and values; None: the documents' own.
    """

    def __init__(self, documents: Tensor, group: dist.ProcessGroup, device: torch.device | None = None) -> None:
        device = documents.device if device is None else device
        rank, ranks, length = group.rank(), group.size(), documents.shape[1]
        self.group, self.chunk = group, length // (2 * ranks)
        self.order = torch.cat([places_of(r, ranks, length) for r in range(ranks)]).argsort().to(device)
        self.begins = [c * self.chunk for c in (rank, 2 * ranks - 1 - rank)]
        self.masks: list[Tensor] = []
        self.spans: list[list[list[tuple[int, int, int]]]] = []
        for begin in self.begins:
            end = begin + self.chunk
            if length <= MASK_BELOW:
                same = documents[:, begin:end, None] == documents[:, None, :end]
                causal = torch.ones(end, end, dtype=torch.bool).tril()[begin:]
                self.masks.append(to_device((same & causal)[:, None], device))
            else:
                self.spans.append([_spans(row, begin, end) for row in documents])

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """This rank's q [B, T / n, H, C], k and v [B, T / n, K, C]; returns [B, T / n, H, C]."""
        both = autograd_all_gather(torch.cat((k, v), dim=2), self.group).index_select(1, self.order).transpose(1, 2)
        keys, values = both.chunk(2, dim=1)
        grouped = q.shape[2] != k.shape[2]
        out = []
        for number, (begin, queries) in enumerate(zip(self.begins, q.transpose(1, 2).chunk(2, dim=2), strict=True)):
            end = begin + self.chunk
            if self.masks:
                seen = keys[:, :, :end], values[:, :, :end]
                out.append(
                    F.scaled_dot_product_attention(queries, *seen, attn_mask=self.masks[number], enable_gqa=grouped)
                )
                continue
            rows = []
            for row, spans in enumerate(self.spans[number]):
                at = slice(row, row + 1)
                pieces = []
                for start, first, last in spans:
                    piece = queries[at, :, first - begin : last - begin]
                    pieces.append(_causal(piece, keys[at, :, start:last], values[at, :, start:last], grouped))
                rows.append(torch.cat(pieces, dim=2))
            out.append(torch.cat(rows))
        return torch.cat(out, dim=2).transpose(1, 2)


def _spans(documents: Tensor, begin: int, end: int) -> list[tuple[int, int, int]]:
    """For each document in [begin, end) of a row: its start, and the first and last + 1 of its indices in the chunk."""
    changes = (documents[1:end] != documents[: end - 1]).nonzero().flatten() + 1
    edges = [0, *changes.tolist(), end]
    return [(start, max(start, begin), stop) for start, stop in pairwise(edges) if stop > begin]


def _causal(q: Tensor, k: Tensor, v: Tensor, grouped: bool) -> Tensor:
    """Causal attention of the last q.shape[2] tokens of a document to all its tokens."""
    queries, keys = q.shape[2], k.shape[2]
    if queries == keys:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    mask = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
