"""The attention plan of a step: where the kernels write its tokens, and which keys each of them sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from herdlm.generate.paged_attention import PagedCache
from herdlm.generate.sequences import Integers, StepInput

ALIGNED = 4  # numbers of 4 bytes: kernels are compiled for addresses at multiples of 16


@dataclass(slots=True, eq=False)
class AttentionPlan:
    """The kernels' view of a step, int32 on the device.

    Attributes:
        slots: [N], where keys and values go.
        tables: block tables [S * P], row after row.
        width: [1], P.
        keys: an upper bound on the lengths of the decoding segments.
        decoding: [R, 3], for each decoding segment: its token's index in N, the row of its table, its number of keys.
        prompts: [B, 4], for each run of a prompt's tokens: the first one's index in N, their number (at most that of
            :func:`prompt_rows`), the first one's position, the row of their table.
    """

    slots: Tensor
    tables: Tensor
    width: Tensor
    keys: int
    decoding: Tensor
    prompts: Tensor


def prompt_rows(group: int, dtype: torch.dtype) -> tuple[int, int]:
    """Rows of queries that a kernel takes from a prompt at once, and how many tokens of ``group`` heads they are."""
    rows = max(128 if dtype.itemsize == 2 else 32, 1 << (group - 1).bit_length())
    return rows, rows // group


def plan_step(cache: PagedCache, step: StepInput) -> AttentionPlan:
    """Plan a step; one transfer brings the plan to the device."""
    pages = step.tables.shape[1]
    firsts = np.cumsum(step.counts) - step.counts
    single = np.flatnonzero(step.counts == 1)
    decoding = np.stack([firsts[single], single, step.begins[single] + 1], axis=1)
    _, run = prompt_rows(cache.group, cache.dtype)
    prompts = _runs(firsts, step.begins, step.counts, run)
    numbers = [step.slots, step.tables.ravel(), np.array([pages]), decoding, prompts]
    slots, tables, width, *rest = _to_device(numbers, cache.device)
    return AttentionPlan(slots, tables, width, pages * cache.page_size, *rest)


def _runs(firsts: Integers, begins: Integers, counts: Integers, length: int) -> Integers:
    """Runs of at most ``length`` tokens of the prompts' segments, [B, 4], those with the most keys first."""
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


def _to_device(parts: list[NDArray[np.int64]], device: torch.device) -> list[Tensor]:
    """Arrays of integers as int32 on the device, in one transfer."""
    offsets = np.cumsum([0, *(aligned(part.size) for part in parts)])
    numbers = np.zeros(offsets[-1], dtype=np.int32)
    for part, offset in zip(parts, offsets.tolist(), strict=False):
        numbers[offset : offset + part.size] = part.ravel()
    there = torch.from_numpy(numbers).to(device)
    return [there[o : o + part.size].view(part.shape) for part, o in zip(parts, offsets.tolist(), strict=False)]
