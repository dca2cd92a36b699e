"""Reads many token sequences at once, and what several of them begin with only once.

Sorted sequences share the longest beginning with their neighbors. A batch holds each sequence's tokens behind what it
shares with the one before it; its attention gathers the keys and values of the whole sequence. Two answers to a prompt
thus cost the prompt once, dialogs cost their system prompt once, and no row is padded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from herdlm.model.transformer import Transformer

TOKENS_AT_ONCE = 4096  # that a batch computes, unless a single sequence has more
MASK_AT_ONCE = 1 << 24  # queries times keys of one call


@dataclass(frozen=True, slots=True)
class _Sequence:
    """A sequence's place in a batch.

    Attributes:
        number: among all sequences.
        path: the batch's places of all its tokens.
        shared: how many of them belong to sequences before it.
    """

    number: int
    path: list[int]
    shared: int

    @property
    def size(self) -> tuple[int, int]:
        """The powers of two of its queries and keys: sequences of one size are computed together."""
        return (len(self.path) - self.shared).bit_length(), len(self.path).bit_length()


@dataclass(frozen=True, slots=True)
class _Group:
    """Sequences whose attention is one call; each is padded to the longest.

    Attributes:
        queries, keys: places of tokens in the batch, [sequences, most queries] and [sequences, most keys].
        seen: the mask [sequences, 1, most queries, most keys].
        real: which of the flattened queries are no padding.
    """

    queries: Tensor
    keys: Tensor
    seen: Tensor
    real: Tensor


class _SharedAttention:
    """Attention in which each sequence sees its own tokens and those that it shares; see :class:`Attend`."""

    def __init__(self, sequences: Sequence[_Sequence], device: torch.device) -> None:
        by_size: dict[tuple[int, int], list[_Sequence]] = defaultdict(list)
        for sequence in sequences:
            if sequence.shared < len(sequence.path):
                by_size[sequence.size].append(sequence)
        self.groups = []
        for (queries, keys), alike in by_size.items():
            at_once = max(1, MASK_AT_ONCE >> (queries + keys))
            self.groups += [_group(alike[at : at + at_once], device) for at in range(0, len(alike), at_once)]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [1, N, H, C], k and v [1, N, K, C] of a batch; returns [1, N, H, C]."""
        out = torch.empty_like(q)
        for group in self.groups:
            queries, keys, values = (
                t[0, places].transpose(1, 2) for t, places in ((q, group.queries), (k, group.keys), (v, group.keys))
            )
            grouped = q.shape[2] != k.shape[2]
            made = F.scaled_dot_product_attention(queries, keys, values, attn_mask=group.seen, enable_gqa=grouped)
            out[0, group.queries.flatten()[group.real]] = made.transpose(1, 2).flatten(0, 1)[group.real]
        return out


def _group(sequences: Sequence[_Sequence], device: torch.device) -> _Group:
    most_queries = max(len(s.path) - s.shared for s in sequences)
    most_keys = max(len(s.path) for s in sequences)
    queries = torch.zeros(len(sequences), most_queries, dtype=torch.int64)
    positions = torch.full(queries.shape, -1)
    keys = torch.zeros(len(sequences), most_keys, dtype=torch.int64)
    for row, s in enumerate(sequences):
        new = len(s.path) - s.shared
        queries[row, :new] = torch.tensor(s.path[s.shared :])
        positions[row, :new] = torch.arange(s.shared, len(s.path))
        keys[row, : len(s.path)] = torch.tensor(s.path)
    seen = torch.arange(most_keys) <= positions.clamp(min=0)[:, None, :, None]
    real = (positions.flatten() >= 0).nonzero().flatten()
    return _Group(queries.to(device), keys.to(device), seen.to(device), real.to(device))


@torch.no_grad()
def last_hidden_states(
    model: Transformer, sequences: Sequence[Sequence[int]], products: torch.dtype | None = None
) -> Iterator[tuple[list[int], Tensor]]:
    """Hidden states of each sequence's last token, in batches: the numbers of sequences, and [S, D] in their order.

    Up to rounding they are those of each sequence alone. None may be empty.

    Args:
        products: the type to compute matrix products in, e.g. bfloat16; by default that of the weights.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(sequences)), key=lambda number: list(sequences[number]))
    at = 0
    while at < len(order):
        tokens: list[int] = []
        positions: list[int] = []
        placed: list[_Sequence] = []
        while at < len(order):
            sequence = sequences[order[at]]
            before = placed[-1] if placed else None
            shared = _common(sequences[before.number], sequence) if before else 0
            if before and len(tokens) + len(sequence) - shared > TOKENS_AT_ONCE:
                break
            path = before.path[:shared] if before else []
            path += range(len(tokens), len(tokens) + len(sequence) - shared)
            tokens += sequence[shared:]
            positions += range(shared, len(sequence))
            placed.append(_Sequence(order[at], path, shared))
            at += 1
        attend = _SharedAttention(placed, device)
        with torch.autocast(device.type, products, enabled=products is not None):
            hidden = model(torch.tensor([tokens], device=device), torch.tensor([positions], device=device), attend)
        yield [s.number for s in placed], hidden[0, [s.path[-1] for s in placed]]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    shorter = min(len(one), len(other))
    return next((i for i in range(shorter) if one[i] != other[i]), shorter)
