"""What the kernels are told of a step: where its tokens are written, and which keys each of them sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from herdlm.generate.paged_attention import PagedCache, StepInput
from herdlm.generate.sequences import Integers

ALIGNED = 4  # numbers of 4 bytes: kernels are compiled for addresses at multiples of 16


@dataclass(slots=True, eq=False)
class AttentionPlan:
    """What the kernels are told of a step, on the device, int32.

    Attributes:
        slots: [N], where keys and values go.
        tables: block tables [S * P], row after row.
        width: [1], P.
        keys: a bound to the lengths of the segments that decode.
        decoding: [R, 3], of each segment that feeds one token: its index in N, the row of its table, its keys.
        prompts: [B, 4], of each run of a prompt's tokens: the first's index in N, their number (at most what
            :func:`prompt_rows` says), the first's position, the row of their table.
    """

    slots: Tensor
    tables: Tensor
    width: Tensor
    keys: int
    decoding: Tensor
    prompts: Tensor


def prompt_rows(group: int, dtype: torch.dtype) -> tuple[int, int]:
    """Rows of queries that a kernel takes of a prompt at once, and how many tokens of ``group`` heads those are."""
    rows = max(128 if dtype.itemsize == 2 else 32, 1 << (group - 1).bit_length())
    return rows, rows // group


def plan_step(cache: PagedCache, feed: StepInput) -> AttentionPlan:
    """What the kernels are told of a step, brought to the device in one transfer."""
    pages = feed.tables.shape[1]
    firsts = np.cumsum(feed.counts) - feed.counts
    single = np.flatnonzero(feed.counts == 1)
    decoding = np.stack([firsts[single], single, feed.begins[single] + 1], axis=1)
    _, run = prompt_rows(cache.group, cache.dtype)
    prompts = _runs(firsts, feed.begins, feed.counts, run)
    numbers = [feed.slots, feed.tables.ravel(), np.array([pages]), decoding, prompts]
    slots, tables, width, *rest = _brought(numbers, cache.device)
    return AttentionPlan(slots, tables, width, pages * cache.page_size, *rest)


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
