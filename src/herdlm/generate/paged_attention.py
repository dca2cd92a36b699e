"""Attention over keys and values in pages, which block tables locate.

Plain PyTorch on every device: pages are gathered into rows of equal length for torch's attention kernel. Segments are
grouped by size, so that padding is small and a group's keys and values stay in the processor's cache. Pages that
several sequences share are read once for all of them (:func:`herdlm.generate.pages.find_shared`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from herdlm.generate.cpu.compiled import worth_compiling
from herdlm.generate.pages import find_shared
from herdlm.generate.sequences import Integers, StepInput
from herdlm.model.config import ModelConfig

if TYPE_CHECKING:
    from herdlm.generate.cpu.kernels import CompiledPages, DecodingRows


def bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of cache that one token takes: keys and values of every layer."""
    return 2 * config.layers * config.kv_heads * config.head_size * dtype.itemsize


class PagedCache:
    """Keys and values of ``pages`` pages (and the padding page 0) in every layer.

    A page holds first the keys, then the values, head by head: [2, K, page_size, C]. Gathering them head by head makes
    a sequence's tokens contiguous, as the attention kernel needs them.
    """

    def __init__(
        self, config: ModelConfig, pages: int, page_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.page_size, self.kv_heads, self.head_size = page_size, config.kv_heads, config.head_size
        self.group = config.heads // config.kv_heads
        self.parts, self.elements = 2 * config.kv_heads, config.heads * config.head_size
        shape = (pages + 1, self.parts, page_size, config.head_size)
        self.layers = [_zeros(shape, device, dtype) for _ in range(config.layers)]
        self.device, self.dtype = device, dtype
        self.page_bytes = math.prod(shape[1:]) * dtype.itemsize
        self.compiled = self._compiled() if worth_compiling(config, device, dtype) else None

    def _compiled(self) -> CompiledPages:
        from herdlm.generate.cpu.kernels import CompiledPages

        shape = (-1, 2, self.kv_heads, self.page_size, self.head_size)
        return CompiledPages([layer.view(shape) for layer in self.layers])

    def copy_pages(self, sources: Integers, targets: Integers) -> None:
        """Copy whole pages in every layer."""
        if len(sources):
            origin, target = (torch.from_numpy(pages).to(self.device) for pages in (sources, targets))
            for layer in self.layers:
                layer.index_copy_(0, target, layer.index_select(0, origin))

    def places(self, slots: Integers) -> tuple[Tensor, Tensor]:
        """Where :meth:`write` puts the keys and the values of N tokens, [N * K] each."""
        pages, offsets = np.divmod(slots, self.page_size)
        heads = np.arange(self.parts).reshape(2, 1, -1)
        rows = (pages[:, None] * self.parts + heads) * self.page_size + offsets[:, None]
        keys, values = torch.from_numpy(rows).to(self.device).flatten(1)
        return keys, values

    def write(self, layer: int, places: tuple[Tensor, Tensor], k: Tensor, v: Tensor) -> None:
        """Store keys and values [N, K, C] at their places."""
        rows = self.layers[layer].view(-1, self.head_size)
        rows.index_copy_(0, places[0], k.reshape(-1, self.head_size))
        rows.index_copy_(0, places[1], v.reshape(-1, self.head_size))

    def runs(self, tables: Integers) -> Tensor:
        """The indices that :meth:`gather` reads for block tables [R, P]."""
        parts = tables[:, None, :] * self.parts + np.arange(self.parts)[:, None]
        return torch.from_numpy(parts.ravel()).to(self.device)

    def gather(self, layer: int, runs: Tensor, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values [R, K, length, C] of the first ``length`` tokens in the pages."""
        gathered = self.layers[layer].view(-1, self.page_size * self.head_size).index_select(0, runs)
        keys, values = gathered.view(rows, 2, self.kv_heads, -1, self.head_size)[:, :, :, :length].unbind(1)
        return keys, values


def _zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros, not uninitialized memory: masked values are multiplied by 0, which NaN would survive."""
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    # torch writes zeros at once; the system's zeros take no memory until they are written to.
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)


@dataclass(slots=True, eq=False)
class Group:
    """R segments attended to together, each padded to T queries.

    Attributes:
        size: R.
        length: L, the keys of the segment that has the most.
        queries: [R * T] indices into the step's N tokens; padding repeats a segment's last token. None if they are all
            of the tokens in order.
        real: the entries of ``queries`` that are not padding; None if none is.
        targets: [U] those entries' indices into the N tokens.
        runs: where the keys and values are; see :meth:`PagedCache.runs`.
        first: whether these queries have no earlier result that this one must be combined with.
        mask: [R, 1, G * T, L], 0 where a query sees a key, else -inf; G query heads share a key/value head. None if
            every query sees every key.
    """

    size: int
    length: int
    queries: Tensor | None
    real: Tensor | None
    targets: Tensor
    runs: Tensor
    first: bool
    mask: Tensor | None


class PagedAttention:
    """Writes a step's keys and values into the cache and attends to them; see :class:`herdlm.model.attention.Attend`.

    The model is called with all tokens of the step as one row: q [1, N, H, C], k and v [1, N, K, C].

    Decoding sequences attend to the pages they share together, and to the rest separately; the log-sum-exp of the
    scores combines the parts (Juravsky et al., arXiv 2402.05099).
    """

    # Keys and values gathered at once. 1 MiB stays within the second-level cache of a CPU core or near it.
    GATHER_BYTES_CPU = 2**20
    GATHER_BYTES_GPU = 2**29

    def __init__(self, cache: PagedCache, step: StepInput) -> None:
        self.cache, self.step = cache, step
        self.planned = False

    def _plan(self) -> None:
        # Planned with the first layer: on several processes the driver never runs the step as a whole.
        step, self.planned = self.step, True
        self.shared, own = self._shared_groups(step)
        self.rows: DecodingRows | None = None
        segments = np.arange(len(step.counts))
        if self.cache.compiled:
            decoding, segments = np.flatnonzero(step.counts == 1), np.flatnonzero(step.counts > 1)
            if len(decoding):
                self.rows = self.cache.compiled.plan(
                    (np.cumsum(step.counts) - step.counts)[decoding],
                    step.tables[decoding],
                    own[decoding],
                    step.begins[decoding] + 1,
                    self.cache.elements,
                )
        else:
            self.places = self.cache.places(step.slots)
        self.groups = [self._group(step, part, own) for part in self._split(step, segments, own)]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See :class:`herdlm.model.attention.Attend`."""
        if not self.planned:
            self._plan()
        cache, queries = self.cache, q[0]
        if cache.compiled:
            cache.compiled.write(layer, self.step.slots, k[0], v[0])
        else:
            cache.write(layer, self.places, k[0], v[0])
        if self.rows is None and len(self.groups) == 1 and self.groups[0].queries is None and not self.shared:
            return self._attend(layer, queries, self.groups[0])[0].view_as(q)
        if self.shared and self.rows is None:  # every group is combined with earlier results, also where there are none
            out = torch.zeros_like(queries, memory_format=torch.contiguous_format)
            norms = out.new_full((*out.shape[:2], 1), -torch.inf, dtype=torch.promote_types(out.dtype, torch.float32))
        else:
            out = torch.empty_like(queries, memory_format=torch.contiguous_format)
            norms = out.new_empty((*out.shape[:2], 1), dtype=torch.promote_types(out.dtype, torch.float32))
        for group in (*self.shared, *self.groups):
            mixed, norm = self._attend(layer, queries, group, wanted=self.shared != [])
            if not group.first:
                others, before = out.index_select(0, group.targets), norms.index_select(0, group.targets)
                mixed = others.lerp_(mixed, torch.sigmoid(norm - before).to(mixed.dtype))
                norm = torch.logaddexp(norm, before)
            out.index_copy_(0, group.targets, mixed)
            if self.shared:
                norms.index_copy_(0, group.targets, norm)
        if self.rows is not None:
            self.rows.attend(layer, queries, out, norms[..., 0])
        return out.view_as(q)

    def _attend(self, layer: int, queries: Tensor, group: Group, wanted: bool = False) -> tuple[Tensor, Tensor]:
        """The output [U, H, C] for a group's U queries and, if wanted, the log-sum-exp of their scores [U, H, 1]."""
        cache = self.cache
        keys, values = cache.gather(layer, group.runs, group.size, group.length)
        picked = queries if group.queries is None else queries.index_select(0, group.queries)
        # The query heads that share a key/value head stand as further queries: [R, K, G * T, C].
        shape = (group.size, -1, cache.kv_heads, cache.group, cache.head_size)
        picked = picked.reshape(shape).permute(0, 2, 3, 1, 4).flatten(2, 3)
        mixed, norm = attention_with_norm(picked, keys, values, group.mask, wanted)
        back = (group.size, cache.kv_heads, cache.group, -1)
        mixed = mixed.view(*back, cache.head_size).permute(0, 3, 1, 2, 4).reshape(-1, *queries.shape[1:])
        if wanted:
            norm = norm.reshape(back).permute(0, 3, 1, 2).reshape(-1, queries.shape[1], 1)
        if group.real is None:
            return mixed, norm
        return mixed.index_select(0, group.real), norm.index_select(0, group.real) if wanted else norm

    def _shared_groups(self, step: StepInput) -> tuple[list[Group], Integers]:
        """A group for each set of sequences that share pages, and how many pages [S] each sequence shares."""
        cache = self.cache
        own = np.zeros(len(step.counts), dtype=np.int64)
        decoding = np.flatnonzero(step.counts == 1)
        groups = []
        firsts = np.cumsum(step.counts) - step.counts
        for rows, begin, end in find_shared(step.tables[decoding], step.begins[decoding] // cache.page_size):
            segments = decoding[rows]
            own[segments] = end
            queries = torch.from_numpy(firsts[segments]).to(cache.device)
            runs = cache.runs(step.tables[segments[:1], begin:end])
            groups.append(Group(1, (end - begin) * cache.page_size, queries, None, queries, runs, begin == 0, None))
        return groups, own

    def _split(self, step: StepInput, segments: Integers, own: Integers) -> Iterator[Integers]:
        """``segments`` in groups of similar numbers of queries, then of pages."""
        cache = self.cache
        pages = -(-(step.begins + step.counts) // cache.page_size) - own
        room = (self.GATHER_BYTES_CPU if cache.device.type == "cpu" else self.GATHER_BYTES_GPU) // cache.page_bytes
        order = segments[np.lexsort((pages[segments], step.counts[segments]))]
        end = len(order)
        decoding = int((step.counts[segments] == 1).sum())
        while end:
            last = order[end - 1]
            # The scores of a prompt grow with its keys and with its queries.
            size = max(int(room // (pages[last] * max(step.counts[last] // 8, 1))), 1)
            begin = max(end - size, decoding if end > decoding else 0)
            yield order[begin:end]
            end = begin

    def _group(self, step: StepInput, segments: Integers, own: Integers) -> Group:
        cache = self.cache
        begins, counts, skipped = step.begins[segments], step.counts[segments], own[segments]
        firsts = (np.cumsum(step.counts) - step.counts)[segments]
        steps = np.arange(counts.max())
        offsets = np.minimum(steps, counts[:, None] - 1)  # [R, T]
        pages = int((-(-(begins + counts) // cache.page_size) - skipped).max())
        reach = begins[:, None] + offsets - skipped[:, None] * cache.page_size  # the last key each query may see
        length, mask = int(reach.max()) + 1, None
        if reach.min() + 1 < length:
            seen = torch.arange(length, device=cache.device) <= torch.from_numpy(reach).to(cache.device)[:, :, None]
            # Added to the scores; every layer would convert a boolean mask into this again.
            mask = torch.zeros(seen.shape, device=cache.device, dtype=cache.dtype).masked_fill_(~seen, -torch.inf)
            mask = mask.repeat(1, cache.group, 1).unsqueeze(1)
        queries = (firsts[:, None] + offsets).ravel()
        real = np.flatnonzero(steps < counts[:, None])
        kept = torch.from_numpy(real).to(cache.device) if len(real) < len(queries) else None
        in_order = len(queries) == len(step.tokens) and bool((queries == np.arange(len(queries))).all())
        columns = np.minimum(skipped[:, None] + np.arange(pages), step.tables.shape[1] - 1)
        tables = np.take_along_axis(step.tables[segments], columns, axis=1)
        return Group(
            size=len(segments),
            length=length,
            queries=None if in_order else torch.from_numpy(queries).to(cache.device),
            real=kept,
            targets=torch.from_numpy(queries[real]).to(cache.device),
            runs=cache.runs(tables),
            first=not skipped.any(),
            mask=mask,
        )


def attention_with_norm(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, wanted: bool) -> tuple[Tensor, Tensor]:
    """Attention [R, K, Q, C] and, if ``wanted``, the log-sum-exp of each query's scores [R, K, Q], at least float32.

    Args:
        q: [R, K, Q, C].
        k, v: [R, K, T, C].
        mask: [R, 1, Q, T], added to the scores.
    """
    if q.device.type == "cpu":
        out, norm = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False, attn_mask=mask)
        return out, norm
    if not wanted:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask), q
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    scores = scores.to(torch.promote_types(q.dtype, torch.float32))
    scores = scores if mask is None else scores + mask
    norm = scores.logsumexp(-1)
    return (scores - norm[..., None]).exp().to(v.dtype) @ v, norm
