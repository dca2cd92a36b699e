"""The attention slot of generation on a GPU: pages are read where they lie, by :mod:`herdlm.generate.kernels`.

Segments that feed one token and runs of prompts go through a kernel each, whatever their lengths; nothing is gathered
or padded. Pages that several sequences hold are read by each of them: the second-level cache of a large GPU, 50 MB,
holds a layer's keys and values of some 12,000 tokens of an 8B model.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from herdlm.generate.paged_attention import Feed, PagedAttention, PagedCache
from herdlm.generate.rows import Integers

KERNEL_TYPES = (torch.float32, torch.bfloat16, torch.float16)
KERNEL_HEAD_SIZES = (16, 32, 64, 128)
SHARED_BYTES = 160 * 2**10  # of shared memory a block: data centre GPUs since the A100
ALIGNED = 4  # numbers of 4 bytes: kernels are compiled for addresses at multiples of 16


def kernels_fit(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether generation runs by its own kernels there; by plain PyTorch if not."""
    return dtype in KERNEL_TYPES and head_size in KERNEL_HEAD_SIZES and runs_kernels(device)


@cache
def runs_kernels(device: torch.device) -> bool:
    """Whether Triton is there and the device is one that the kernels are written for."""
    if importlib.util.find_spec("triton") is None:
        return False
    if device.type == "cpu":
        return os.environ.get("TRITON_INTERPRET") == "1"  # Triton's own switch: for tests
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return bool(torch.cuda.get_device_properties(device).shared_memory_per_block_optin >= SHARED_BYTES)


@dataclass(slots=True, eq=False)
class AttentionPlan:
    """What the kernels are told of a step, on the device, int32.

    Attributes:
        slots: [N], where keys and values go.
        tables: block tables [S * P], row after row.
        width: [1], P.
        keys: a bound to the lengths of the segments that decode.
        decoding: [R, 3]; see :func:`herdlm.generate.kernels.attend_decoding`.
        prompts: [B, 4]; see :func:`herdlm.generate.kernels.attend_prompts`.
    """

    slots: Tensor
    tables: Tensor
    width: Tensor
    keys: int
    decoding: Tensor
    prompts: Tensor


class PlannedAttention:
    """Attention by the kernels; see :class:`herdlm.model.attention.Attend`.

    The model is called with all tokens of the step as one row, as with
    :class:`herdlm.generate.paged_attention.PagedAttention`.
    """

    def __init__(self, cache: PagedCache, plan: AttentionPlan) -> None:
        self.cache, self.plan = cache, plan

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See :class:`herdlm.model.attention.Attend`."""
        return self.turned(layer, torch.cat((q[0], k[0], v[0]), dim=1), None)[None]

    def turned(self, layer: int, heads: Tensor, turn: Tensor | None) -> Tensor:
        """As :meth:`__call__`, of queries and keys that RoPE has not turned yet.

        Args:
            heads: [N, H + 2K, C], contiguous: queries, keys, values. The queries are overwritten.
            turn: RoPE's angles as complex numbers [N, 1, C/2]; None where it has turned them.

        Returns:
            [N, H, C].
        """
        from herdlm.generate import kernels  # with Triton, which machines without a GPU lack

        cache, plan = self.cache, self.plan
        pages = cache.layers[layer]
        kernels.turn_and_write(heads, turn, plan.slots, pages)
        out = heads.new_empty(len(heads), heads.shape[1] - cache.parts, cache.head_size)
        if len(plan.decoding):
            kernels.attend_decoding(heads, pages, plan.tables, plan.width, plan.keys, plan.decoding, out)
        if len(plan.prompts):
            kernels.attend_prompts(heads, pages, plan.tables, plan.width, plan.prompts, out)
        return out


class KernelAttention(PlannedAttention):
    """Attention by the kernels over a step that is planned with its first layer."""

    def __init__(self, cache: PagedCache, feed: Feed) -> None:
        self.cache, self.feed = cache, feed
        self.planned = False

    def turned(self, layer: int, heads: Tensor, turn: Tensor | None) -> Tensor:
        """See :meth:`PlannedAttention.turned`."""
        if not self.planned:
            self.plan, self.planned = plan_step(self.cache, self.feed), True
        return super().turned(layer, heads, turn)


def attention_for(cache: PagedCache, feed: Feed) -> PagedAttention | KernelAttention:
    """The attention that runs a step's ``feed`` fastest where the cache is."""
    if kernels_fit(cache.device, cache.dtype, cache.head_size):
        return KernelAttention(cache, feed)
    return PagedAttention(cache, feed)


def plan_step(cache: PagedCache, feed: Feed) -> AttentionPlan:
    """What the kernels are told of a step, brought to the device in one transfer."""
    from herdlm.generate.kernels import prompt_rows

    segments, pages = feed.tables.shape
    firsts = np.cumsum(feed.counts) - feed.counts
    single = np.flatnonzero(feed.counts == 1)
    decoding = np.stack([firsts[single], single, feed.begins[single] + 1], axis=1)
    _, run = prompt_rows(cache.group, cache.dtype)
    prompts = _runs(firsts, feed.begins, feed.counts, run)
    slots, tables, width, decoding, prompts = _brought(
        [feed.slots, feed.tables.ravel(), np.array([pages]), decoding, prompts], cache.device
    )
    return AttentionPlan(slots, tables, width, pages * cache.page_size, decoding, prompts)


def _runs(firsts: Integers, begins: Integers, counts: Integers, length: int) -> Integers:
    """Runs of at most ``length`` tokens of the segments that feed several, [B, 4], those with the most keys first."""
    longer = np.flatnonzero(counts > 1)
    owners = np.repeat(longer, -(-counts[longer] // length))
    nth = np.arange(len(owners)) - np.searchsorted(owners, owners)
    offsets = nth * length
    runs = np.stack(
        [firsts[owners] + offsets, np.minimum(counts[owners] - offsets, length), begins[owners] + offsets, owners],
        axis=1,
    )
    return runs[np.argsort(-(runs[:, 1] + runs[:, 2]), kind="stable")]


def aligned(size: int) -> int:
    """The next multiple of ``ALIGNED``."""
    return -(-size // ALIGNED) * ALIGNED


def _brought(parts: list[NDArray[np.int64]], device: torch.device) -> list[Tensor]:
    """Arrays of integers as int32 on the device."""
    offsets = np.cumsum([0, *(aligned(part.size) for part in parts)])
    numbers = np.zeros(offsets[-1], dtype=np.int32)
    for part, offset in zip(parts, offsets.tolist(), strict=False):
        numbers[offset : offset + part.size] = part.ravel()
    there = torch.from_numpy(numbers).to(device)
    return [there[o : o + part.size].view(part.shape) for part, o in zip(parts, offsets.tolist(), strict=False)]
