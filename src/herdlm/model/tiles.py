"""Exact attention inside documents on a CPU, tile by tile.

All rows of a batch are laid end to end and split into tiles of at most ``TILE`` queries. A tile is several whole short
documents, or a part of one long document. It sees the keys from its first document's start to its own end, so work
grows with the lengths of documents, not of rows, and many short documents take few calls. Scores, softmax and the
gradient of the weights are float32 (float64 for float64 inputs); other products have the input's type. Attention
weights are kept for the backward pass if a query sees at most ``KEPT_KEYS`` keys on average, and computed again
otherwise, so memory grows only with the number of tokens.

torch's CPU kernel spends half of its backward pass on converting every block to float32 and back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

TILE = 192
KEPT_KEYS = 512

Tiles = list[tuple[int, int, int, int]]


class TilePlan:
    """Tiles of one batch as tensors, so that a compiled layer accepts any batch; see :func:`plan_tiles`."""

    def __init__(self, tiles: Tiles, documents: Tensor) -> None:
        """``documents`` [N] is each token's document, numbered through the batch."""
        self.tiles = torch.tensor(tiles)
        self.masks = tile_masks(tiles, documents)
        self.keep = self.masks.numel() <= KEPT_KEYS * len(documents)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of q [N, H, C] over k and v [N, K, C]; [N, H, C]."""
        keep = self.keep and torch.is_grad_enabled()
        out: Tensor = tiled_attention(q, k, v, self.tiles, self.masks, keep)[0]
        return out


def plan_tiles(starts: list[int]) -> Tiles:
    """Split documents into tiles (first query, end of queries, first key, end of keys).

    ``starts`` are the indices of the documents' first tokens in the batch, followed by the number of tokens.
    """
    tiles: Tiles = []
    open_from = starts[0]
    for begin, end in pairwise(starts):
        if end - open_from <= TILE:
            continue  # fits beside the short documents before it
        if begin > open_from:
            tiles.append((open_from, begin, open_from, begin))
        open_from = begin
        if end - begin > TILE:
            cuts = [*range(begin, end, TILE), end]
            tiles += [(at, to, begin, to) for at, to in pairwise(cuts)]
            open_from = end
    if open_from < starts[-1]:
        tiles.append((open_from, starts[-1], open_from, starts[-1]))
    return tiles


def tile_masks(tiles: Tiles, documents: Tensor) -> Tensor:
    """The masks (0 or -inf) that tiles add to their scores, [queries, keys] each, one after the other in a flat tensor.

    ``documents`` [N] is each token's document, numbered through the batch.
    """
    parts = []
    for begin, end, first, last in tiles:
        queries, keys = torch.arange(begin, end)[:, None], torch.arange(first, last)
        seen = (documents[begin:end, None] == documents[first:last]) & (keys <= queries)
        parts.append(torch.zeros(seen.shape).masked_fill_(~seen, -math.inf).flatten())
    return torch.cat(parts)


@torch.library.custom_op("herdlm::tiled_attention", mutates_args=(), device_types="cpu")
def tiled_attention(  # noqa: PLR0917
    q: Tensor, k: Tensor, v: Tensor, tiles: Tensor, masks: Tensor, keep: bool
) -> tuple[Tensor, Tensor]:
    """The output [N, H, C], and the attention weights of all tiles in a flat tensor, empty without ``keep``."""
    heads, groups = k.shape[1], q.shape[1] // k.shape[1]
    out = torch.empty(q.shape, dtype=q.dtype)
    grouped = _unflatten(out, heads).transpose(0, 1)  # [K, N, G, C]
    kept = torch.empty(q.shape[1] * masks.numel() * keep, dtype=q.dtype)
    queries, keys, values = (_by_key_head(t, heads) for t in (q, k, v))
    keys, values = keys[:, :, 0], values[:, :, 0]
    with _own_precision(q.dtype):
        wide_queries, wide_keys = _widened(queries), _widened(keys)
        for begin, end, first, last, mask, place in _tiles(tiles, masks, kept, heads):
            weights = _weights(wide_queries[:, begin:end], wide_keys[:, first:last], mask)
            weights = weights.to(q.dtype) if place is None else place.copy_(weights)
            grouped[:, begin:end] = torch.bmm(weights, values[:, first:last]).view(heads, end - begin, groups, -1)
    return out, kept


@torch.library.custom_op("herdlm::tiled_attention_backward", mutates_args=(), device_types="cpu")
def tiled_attention_backward(  # noqa: PLR0917
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, kept: Tensor, tiles: Tensor, masks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q [N, H, C], k and v [N, K, C] from the output's gradient.

    With weights P = softmax(S) and output O: dV = P^T dO, dS = P * (dO V^T - sum(dO * O)), dQ = dS K, dK = dS^T Q.
    """
    heads, groups, scale = k.shape[1], q.shape[1] // k.shape[1], q.shape[2] ** -0.5
    d_q = torch.empty(q.shape, dtype=q.dtype)
    d_grouped = _unflatten(d_q, heads).transpose(0, 1)
    queries, keys, values, above = (_by_key_head(t, heads) for t in (q, k, v, gradient))
    keys, values = keys[:, :, 0], values[:, :, 0]
    with _own_precision(q.dtype):
        shared = _by_key_head((_widened(gradient) * out).sum(-1, keepdim=True), heads)
        d_k, d_v = (torch.zeros(keys.shape, dtype=shared.dtype) for _ in range(2))
        wide_above, wide_values = _widened(above), _widened(values)
        wide_queries, wide_keys = (queries, keys) if kept.numel() else (_widened(queries), _widened(keys))
        for begin, end, first, last, mask, place in _tiles(tiles, masks, kept, heads):
            at, seen = slice(begin, end), slice(first, last)
            weights = _weights(wide_queries[:, at], wide_keys[:, seen], mask) if place is None else place
            d_v[:, seen] += torch.bmm(weights.to(q.dtype).transpose(1, 2), above[:, at].flatten(1, 2))
            d_scores = torch.bmm(wide_above[:, at].flatten(1, 2), wide_values[:, seen].transpose(1, 2))
            d_scores = d_scores.sub_(shared[:, at].flatten(1, 2)).mul_(weights).mul_(scale).to(q.dtype)
            d_grouped[:, at] = torch.bmm(d_scores, keys[:, seen]).view(heads, end - begin, groups, -1)
            d_k[:, seen] += torch.bmm(d_scores.transpose(1, 2), queries[:, at].flatten(1, 2))
    return d_q, d_k.to(k.dtype).transpose(0, 1).contiguous(), d_v.to(v.dtype).transpose(0, 1).contiguous()


@tiled_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, tiles: Tensor, masks: Tensor, keep: bool) -> tuple[Tensor, Tensor]:  # noqa: PLR0917
    return q.new_empty(q.shape), q.new_empty(q.shape[1] * masks.numel() if keep else 0)


@tiled_attention_backward.register_fake
def _(  # noqa: PLR0917
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, kept: Tensor, tiles: Tensor, masks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, tiles, masks, _ = inputs
    ctx.save_for_backward(q, k, v, *output, tiles, masks)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *tiled_attention_backward(gradient, *ctx.saved_tensors), None, None, None


tiled_attention.register_autograd(_backward, setup_context=_save)


def _unflatten(x: Tensor, heads: int) -> Tensor:
    """A view of [N, H, C] as [N, K, G, C]."""
    return x.view(x.shape[0], heads, -1, x.shape[2])


def _by_key_head(x: Tensor, heads: int) -> Tensor:
    """[N, H, C] as contiguous [K, N, G, C]: the G query heads of a key head lie together."""
    return _unflatten(x.contiguous(), heads).transpose(0, 1).contiguous()


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextmanager
def _own_precision(dtype: torch.dtype) -> Iterator[None]:
    """Turn autocast off, and let float32 products of bfloat16 inputs use the CPU's bfloat16 units, if it has them.

    That is exact, since every factor fits bfloat16 and the units add in float32, and twice as fast. The setting is
    global: meanwhile, it applies to float32 products of other threads as well.
    """
    settings: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    with torch.autocast("cpu", enabled=False):
        try:
            if dtype == torch.bfloat16:
                settings.fp32_precision = "bf16"
            yield
        finally:
            settings.fp32_precision = before


def _weights(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """softmax of queries [K, n, G, C] times keys [K, m, C], scaled, under a mask [n, 1, m], as [K, n * G, m]."""
    scores = torch.bmm(queries.flatten(1, 2), keys.transpose(1, 2))
    rows = scores.view(*queries.shape[:3], -1)
    torch.add(mask, rows, alpha=queries.shape[3] ** -0.5, out=rows)
    return torch.softmax(scores, dim=-1)


def _tiles(
    tiles: Tensor, masks: Tensor, kept: Tensor, heads: int
) -> Iterator[tuple[int, int, int, int, Tensor, Tensor | None]]:
    """Yield each tile with its mask [queries, 1, keys] and the place of its kept weights [K, queries * G, keys]."""
    at, per_pair = 0, kept.numel() // max(masks.numel(), 1)
    for begin, end, first, last in tiles.tolist():
        size = (end - begin) * (last - first)
        mask = masks[at : at + size].view(end - begin, 1, last - first)
        place = kept[at * per_pair : (at + size) * per_pair].view(heads, -1, last - first) if per_pair else None
        yield begin, end, first, last, mask, place
        at += size
