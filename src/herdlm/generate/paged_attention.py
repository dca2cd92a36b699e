"""The attention slot of generation: keys and values in pages, found through block tables.

Plain PyTorch on every device: pages are gathered into rows of equal length and attended to by
``scaled_dot_product_attention``. Segments are taken in groups of like size, so that little is padded and a group's
keys and values stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from herdlm.generate.rows import Integers
from herdlm.generate.scheduler import Batch
from herdlm.model.config import ModelConfig


def bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of cache that one token takes: keys and values of every layer."""
    return 2 * config.layers * config.kv_heads * config.head_size * dtype.itemsize


class PagedCache:
    """Keys and values of ``pages`` pages (and the padding page 0) in every layer."""

    def __init__(
        self, config: ModelConfig, pages: int, page_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.page_size, self.kv_heads, self.head_size = page_size, config.kv_heads, config.head_size
        self.group = config.heads // config.kv_heads
        shape = ((pages + 1) * page_size, config.kv_heads * config.head_size)
        # Zeros, not empty memory: what is masked still gets multiplied by 0, and NaN would survive that.
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.device = device

    def copy_pages(self, sources: Integers, targets: Integers) -> None:
        """Copy whole pages in every layer."""
        if len(sources):
            origin, target = (torch.from_numpy(pages).to(self.device) for pages in (sources, targets))
            for layer in (*self.keys, *self.values):
                pages = self._by_page(layer)
                pages.index_copy_(0, target, pages.index_select(0, origin))

    def gather(self, layer: int, tables: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [R, K, P * page_size, C] of block tables [R, P]."""
        return self._gather(self.keys[layer], tables), self._gather(self.values[layer], tables)

    def _gather(self, pool: Tensor, tables: Tensor) -> Tensor:
        rows = self._by_page(pool).index_select(0, tables.flatten())
        return rows.view(len(tables), -1, self.kv_heads, self.head_size).transpose(1, 2)

    def _by_page(self, pool: Tensor) -> Tensor:
        return pool.view(-1, self.page_size * pool.shape[1])


@dataclass(slots=True, eq=False)
class Group:
    """R segments attended to together, each padded to T queries.

    Attributes:
        queries: [R * T] indices into the step's N tokens; padding repeats a segment's last token.
        real: the entries of ``queries`` that are no padding; None where all are.
        targets: [U] those entries' indices into the N tokens.
        tables: [R, P].
        mask: [R, 1, G * T, P * page_size], 0 where a query may look, else -inf; G query heads share a
            key/value head.
    """

    queries: Tensor
    real: Tensor | None
    targets: Tensor
    tables: Tensor
    mask: Tensor


class PagedAttention:
    """Writes a step's keys and values into the cache and attends to them; see :class:`herdlm.model.attention.Attend`.

    The model is called with all tokens of the step as one row: q [1, N, H, C], k and v [1, N, K, C].
    """

    # Keys gathered at once. 0.5 MiB stays within the second-level cache of a CPU core beside the values and scores.
    GATHER_BYTES_CPU = 2**19
    GATHER_BYTES_GPU = 2**28

    def __init__(self, cache: PagedCache, batch: Batch) -> None:
        self.cache = cache
        self.slots = torch.from_numpy(batch.slots).to(cache.device)
        self.groups = [self._group(batch, segments) for segments in self._split(batch)]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See :class:`herdlm.model.attention.Attend`."""
        cache = self.cache
        cache.keys[layer].index_copy_(0, self.slots, k.flatten(2).squeeze(0))
        cache.values[layer].index_copy_(0, self.slots, v.flatten(2).squeeze(0))
        flat = q.flatten(2).squeeze(0)
        out = torch.empty_like(flat)
        for group in self.groups:
            keys, values = cache.gather(layer, group.tables)
            # The query heads that share a key/value head stand as further queries: [R, K, G * T, C].
            picked = flat.index_select(0, group.queries)
            picked = picked.view(len(group.tables), -1, cache.kv_heads, cache.group, cache.head_size)
            picked = picked.permute(0, 2, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(picked.flatten(2, 3), keys, values, attn_mask=group.mask)
            shape = (len(group.tables), cache.kv_heads, cache.group, -1, cache.head_size)
            mixed = mixed.reshape(shape).permute(0, 3, 1, 2, 4).reshape(-1, flat.shape[1])
            out.index_copy_(0, group.targets, mixed if group.real is None else mixed.index_select(0, group.real))
        return out.view_as(q)

    def _split(self, batch: Batch) -> Iterator[Integers]:
        """Segments in groups: like numbers of queries together, then like numbers of pages."""
        cache = self.cache
        pages = -(-(batch.begins + batch.counts) // cache.page_size)
        page_bytes = cache.page_size * cache.keys[0].shape[1] * cache.keys[0].dtype.itemsize
        room = (self.GATHER_BYTES_CPU if cache.device.type == "cpu" else self.GATHER_BYTES_GPU) // page_bytes
        order = np.lexsort((pages, batch.counts))
        end = len(order)
        decoding = int((batch.counts == 1).sum())
        while end:
            last = order[end - 1]
            # A prompt's scores are as wide as its keys and as many as its queries.
            size = max(int(room // (pages[last] * max(batch.counts[last] // 8, 1))), 1)
            begin = max(end - size, decoding if end > decoding else 0)
            yield order[begin:end]
            end = begin

    def _group(self, batch: Batch, segments: Integers) -> Group:
        cache = self.cache
        begins, counts = batch.begins[segments], batch.counts[segments]
        firsts = (np.cumsum(batch.counts) - batch.counts)[segments]
        steps = np.arange(counts.max())
        offsets = np.minimum(steps, counts[:, None] - 1)  # [R, T]
        pages = int((-(-(begins + counts) // cache.page_size)).max())
        reach = torch.from_numpy(begins[:, None] + offsets).to(cache.device)  # the last key each query may see
        seen = torch.arange(pages * cache.page_size, device=cache.device) <= reach[:, :, None]
        # Added to the scores; a boolean mask would be turned into this anew in every layer.
        mask = torch.zeros(seen.shape, device=cache.device, dtype=cache.keys[0].dtype).masked_fill_(~seen, -torch.inf)
        queries = torch.from_numpy((firsts[:, None] + offsets).ravel()).to(cache.device)
        real = np.flatnonzero(steps < counts[:, None])
        padded = len(real) < len(queries)
        kept = torch.from_numpy(real).to(cache.device) if padded else None
        return Group(
            queries=queries,
            real=kept,
            targets=queries if kept is None else queries[kept],
            tables=torch.from_numpy(batch.tables[segments, :pages]).to(cache.device),
            mask=mask.repeat(1, cache.group, 1).unsqueeze(1),
        )
