"""Launches of the kernels in :mod:`herdlm.generate.gpu.kernels`, whose docstring gives the letters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from herdlm.generate.gpu.kernels import (
    attend_decoding_kernel,
    attend_prompts_kernel,
    join_splits_kernel,
    quantize_kernel,
    rotate_and_write_kernel,
    swiglu_kernel,
)
from herdlm.generate.gpu.plan import AttentionPlan, prompt_rows
from herdlm.model.fp8 import FP8

LOG2_E = 1 / math.log(2)
LEAST_ROWS = 16  # the smallest matrix a tensor core takes
PROGRAMS = 512  # enough to saturate a large GPU's memory: a few for each of its 132 multiprocessors
LEAST_SPLITS, MOST_SPLITS = 8, 64


def rotate_and_write(heads: Tensor, rotation: Tensor | None, slots: Tensor, pages: Tensor) -> None:
    """Rotate queries in place, and write rotated keys and values to their slots.

    Args:
        heads: [N, H + 2K, C], contiguous; two channels that RoPE rotates together are neighbors.
        rotation: [N, 1, C/2] complex; None if queries and keys are rotated already.
        slots: [N] integers, page * S + offset.
        pages: one layer's.
    """
    count, every, size = heads.shape
    kv_heads, page_size = pages.shape[1] // 2, pages.shape[2]
    block = max(1024 // size, 1)
    angles = heads if rotation is None else torch.view_as_real(rotation)
    rotate_and_write_kernel[count, -(-every // block)](
        heads, angles, slots, pages, every - 2 * kv_heads, kv_heads, size, page_size, rotation is not None, block
    )


def decode_blocks(dtype: torch.dtype, segments: int, kv_heads: int) -> tuple[int, int]:
    """How many keys :func:`attend_decoding` takes at once, and the least number of such blocks in a split."""
    return (64 if dtype.itemsize == 2 else 32), (2 if segments * kv_heads < PROGRAMS // 4 else 4)


def splits_for(segments: int, kv_heads: int, keys: int, least: int) -> int:
    """The number of splits of at least ``least`` keys each, for segments of at most ``keys`` keys.

    A batch keeps several splits even if it has many segments, as one may be far longer than the others; empty splits
    cost little. Results do not depend on ``keys``: a segment that fits one split is never cut.
    """
    if keys <= least:
        return 1
    return min(max(power_of_two(-(-PROGRAMS // (segments * kv_heads))), LEAST_SPLITS), MOST_SPLITS)


def attend_decoding(heads: Tensor, pages: Tensor, plan: AttentionPlan, out: Tensor) -> None:
    """Attention of the decoding segments; those without keys give zeros.

    Args:
        heads: [N, H + 2K, C], contiguous; queries are rotated, keys and values written.
        pages: one layer's.
        out: [N, H, C], contiguous; receives the segments' tokens.
    """
    _, every, size = heads.shape
    kv_heads, page_size, count = pages.shape[1] // 2, pages.shape[2], len(plan.decoding)
    query_heads = every - 2 * kv_heads
    block, least = decode_blocks(heads.dtype, count, kv_heads)
    splits = splits_for(count, kv_heads, plan.keys, block * least)
    group = max(power_of_two(query_heads // kv_heads), LEAST_ROWS)
    partial = norms = out
    if splits > 1:
        partial = torch.empty((count, query_heads, splits, size), dtype=torch.float32, device=out.device)
        norms = torch.empty((count, query_heads, splits), dtype=torch.float32, device=out.device)
    attend_decoding_kernel[count, kv_heads, splits](
        heads,
        pages,
        plan.tables,
        plan.width,
        plan.decoding,
        out,
        partial,
        norms,
        size**-0.5 * LOG2_E,
        query_heads,
        kv_heads,
        size,
        page_size,
        group,
        block,
        splits,
        least,
        num_warps=4,
        num_stages=stages(heads),
    )
    if splits > 1:
        join_splits_kernel[count, query_heads](partial, norms, plan.decoding, out, query_heads, size, splits)


def stages(heads: Tensor) -> int:
    """Depth of the loops' software pipeline: with 5, two blocks of keys are in flight, as shared memory allows."""
    if heads.dtype.itemsize > 2:
        return 1
    return 5 if heads.shape[2] <= 128 else 3


def attend_prompts(heads: Tensor, pages: Tensor, plan: AttentionPlan, out: Tensor) -> None:
    """Causal attention of runs of prompts' tokens; arguments as for :func:`attend_decoding`."""
    _, every, size = heads.shape
    kv_heads, page_size = pages.shape[1] // 2, pages.shape[2]
    query_heads, narrow = every - 2 * kv_heads, heads.dtype.itemsize == 2
    rows, _ = prompt_rows(query_heads // kv_heads, heads.dtype)
    attend_prompts_kernel[len(plan.prompts), kv_heads](
        heads,
        pages,
        plan.tables,
        plan.width,
        plan.prompts,
        out,
        size**-0.5 * LOG2_E,
        query_heads,
        kv_heads,
        size,
        page_size,
        rows,
        64 if narrow else 32,
        num_warps=8,
        num_stages=stages(heads),
    )


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up, [N, F], of both joined [N, 2F], contiguous."""
    count, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((count, size), dtype=gate_up.dtype, device=gate_up.device)
    swiglu_kernel[count, -(-size // 1024)](gate_up, out, size, 1024)
    return out


def quantize_rows(x: Tensor, cap: float, *, joined: bool = False) -> tuple[Tensor, Tensor]:
    """As :func:`herdlm.generate.fp8.linear.quantize_activation` by rows, for x [N, F], contiguous.

    With ``joined``, x is [N, 2F] and its :func:`swiglu` is quantized.
    """
    count, size = x.shape[0], x.shape[1] // 2 if joined else x.shape[1]
    values = torch.empty((count, size), dtype=FP8, device=x.device)
    scales = torch.empty((count, 1), dtype=torch.float32, device=x.device)
    block = power_of_two(size)
    quantize_kernel[count,](x, values, scales, size, cap, joined, block, num_warps=min(max(block // 1024, 1), 16))
    return values, scales


def power_of_two(size: int) -> int:
    """The least power of two that is not below ``size``."""
    return 1 << (size - 1).bit_length()
