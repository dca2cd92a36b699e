"""The kernels of generation on a GPU, in Triton, and the functions that launch them.

torch brings Triton along on CUDA; nothing imports this file elsewhere. With ``TRITON_INTERPRET=1`` in the environment
Triton runs the same kernels on tensors of a CPU, which is how they are tested.

Letters: N tokens of a step, R segments, H query heads, K key/value heads, G = H / K, C head size, S tokens per page, P
pages in a block table. Pages are those of :class:`herdlm.generate.paged_attention.PagedCache`, [pages, 2K, S, C]; heads
come as they leave the joined product, [N, H + 2K, C]: queries, keys, values.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

FP8 = torch.float8_e4m3fn
LOG2_E = 1 / math.log(2)
LEAST_ROWS = 16  # that a matrix unit takes
PROGRAMS = 512  # that keep the memory of a large GPU busy: a few for each of its 132 multiprocessors
LEAST_SPLITS, MOST_SPLITS = 8, 64


@triton.jit
def turn_and_write_kernel(
    heads, turn, slots, pages,
    query_heads: tl.constexpr, kv_heads: tl.constexpr, size: tl.constexpr, page_size: tl.constexpr,
    turned: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """A token's queries turned in place; its keys, turned, and values written to their page. ``block`` heads each."""
    token = tl.program_id(0).to(tl.int64)
    every: tl.constexpr = query_heads + 2 * kv_heads
    head = tl.program_id(1) * block + tl.arange(0, block)
    channel = tl.arange(0, size)
    here = heads + token * (every * size) + head[:, None] * size + channel[None, :]
    inside = (head < every)[:, None] & (channel >= 0)[None, :]
    x = tl.load(here, mask=inside, other=0.0)
    if turned:
        pair = tl.arange(0, size // 2)
        cosine = tl.load(turn + token * size + pair * 2)[None, :]
        sine = tl.load(turn + token * size + pair * 2 + 1)[None, :]
        first, second = tl.split(tl.reshape(x, (block, size // 2, 2)).to(tl.float32))
        new = tl.join(first * cosine - second * sine, second * cosine + first * sine)
        new = tl.reshape(new, (block, size)).to(x.dtype)
        x = tl.where((head < query_heads + kv_heads)[:, None], new, x)
        tl.store(here, x, mask=inside & (head < query_heads)[:, None])
    slot = tl.load(slots + token).to(tl.int64)
    part = slot // page_size * (2 * kv_heads) + head - query_heads
    there = pages + (part[:, None] * page_size + slot % page_size) * size + channel[None, :]
    tl.store(there, x, mask=inside & (head >= query_heads)[:, None])


@triton.jit
def attend_decoding_kernel(
    heads, pages, tables, width, segments, out, partial, norms, scale,
    query_heads: tl.constexpr, kv_heads: tl.constexpr, size: tl.constexpr, page_size: tl.constexpr,
    group: tl.constexpr, block: tl.constexpr, splits: tl.constexpr, least_blocks: tl.constexpr,
):  # fmt: skip
    """One key/value head's queries of a segment against a run of its keys ("flash decoding").

    How many keys a split takes follows from the length when it runs. With one split the result goes to ``out``, else
    to ``partial`` [R, H, splits, C] with its log-sum-exp to the base 2 in ``norms`` [R, H, splits].
    """
    row, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    length = tl.load(segments + row * 3 + 2)
    each = tl.maximum(tl.cdiv(tl.cdiv(length, block), splits), least_blocks) * block
    begin = split * each
    member, members = tl.arange(0, group), query_heads // kv_heads
    real = member < members
    query_head = head * members + member
    if splits > 1 and begin >= length:
        tl.store(norms + (row * query_heads + query_head) * splits + split, float("-inf"), mask=real)
        return
    end = tl.minimum(begin + each, length)
    token = tl.load(segments + row * 3).to(tl.int64)
    table = tables + tl.load(segments + row * 3 + 1).to(tl.int64) * tl.load(width)
    channel = tl.arange(0, size)
    place = query_head[:, None] * size + channel[None, :]
    q = tl.load(heads + token * ((query_heads + 2 * kv_heads) * size) + place, mask=real[:, None], other=0.0)
    largest = tl.full((group,), float("-inf"), tl.float32)
    total = tl.zeros((group,), tl.float32)
    mixed = tl.zeros((group, size), tl.float32)
    for start in tl.range(begin, end, block):
        key = start + tl.arange(0, block)
        seen = key < end
        page = tl.load(table + key // page_size, mask=seen, other=0).to(tl.int64)
        at = pages + ((page * (2 * kv_heads) + head) * page_size + key % page_size) * size
        k = tl.load(at[None, :] + channel[:, None], mask=seen[None, :], other=0.0)
        v = tl.load(at[:, None] + (kv_heads * page_size * size) + channel[None, :], mask=seen[:, None], other=0.0)
        scores = tl.where(seen[None, :], tl.dot(q, k, input_precision="ieee") * scale, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - larger[:, None])
        fade = tl.exp2(largest - larger)
        total = total * fade + tl.sum(weights, 1)
        mixed = mixed * fade[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        largest = larger
    mixed = mixed / tl.where(total > 0, total, 1.0)[:, None]  # a segment of padding has no keys: zeros
    if splits == 1:
        there = out + token * (query_heads * size) + place
        tl.store(there, mixed.to(out.dtype.element_ty), mask=real[:, None])
    else:
        at_split = (row * query_heads + query_head) * splits + split
        tl.store(norms + at_split, largest + tl.log2(total), mask=real)
        tl.store(partial + at_split[:, None] * size + channel[None, :], mixed, mask=real[:, None])


@triton.jit
def join_splits_kernel(
    partial, norms, segments, out, query_heads: tl.constexpr, size: tl.constexpr, splits: tl.constexpr
):  # fmt: skip
    """What the splits found of one segment's head, put together by their log-sum-exp."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    split, channel = tl.arange(0, splits), tl.arange(0, size)
    at = (row * query_heads + head) * splits + split
    norm = tl.load(norms + at)
    found = norm > float("-inf")
    share = tl.where(found, tl.exp2(norm - tl.max(norm, 0)), 0.0)
    parts = tl.load(partial + at[:, None] * size + channel[None, :], mask=found[:, None], other=0.0)
    total = tl.sum(share, 0)
    mixed = tl.sum(parts * share[:, None], 0) / tl.where(total > 0, total, 1.0)
    token = tl.load(segments + row * 3).to(tl.int64)
    tl.store(out + (token * query_heads + head) * size + channel, mixed.to(out.dtype.element_ty))


@triton.jit
def attend_prompts_kernel(
    heads, pages, tables, width, plan, out, scale,
    query_heads: tl.constexpr, kv_heads: tl.constexpr, size: tl.constexpr, page_size: tl.constexpr,
    rows: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """A run of a prompt's tokens, the queries of one key/value head folded into rows, against all keys before them."""
    members: tl.constexpr = query_heads // kv_heads
    entry, head = plan + tl.program_id(0).to(tl.int64) * 4, tl.program_id(1)
    first, count = tl.load(entry).to(tl.int64), tl.load(entry + 1)
    position = tl.load(entry + 2)
    table = tables + tl.load(entry + 3).to(tl.int64) * tl.load(width)
    row, channel = tl.arange(0, rows), tl.arange(0, size)
    offset = row // members
    real = (offset < count)[:, None]
    place = (head * members + row % members)[:, None] * size + channel[None, :]
    q_at = heads + (first + offset)[:, None] * ((query_heads + 2 * kv_heads) * size) + place
    q = tl.load(q_at, mask=real, other=0.0)
    last, end = position + offset, position + count
    largest = tl.full((rows,), float("-inf"), tl.float32)
    total = tl.zeros((rows,), tl.float32)
    mixed = tl.zeros((rows, size), tl.float32)
    for start in tl.range(0, end, block):
        key = start + tl.arange(0, block)
        inside = key < end
        page = tl.load(table + key // page_size, mask=inside, other=0).to(tl.int64)
        at = pages + ((page * (2 * kv_heads) + head) * page_size + key % page_size) * size
        k = tl.load(at[None, :] + channel[:, None], mask=inside[None, :], other=0.0)
        v = tl.load(at[:, None] + (kv_heads * page_size * size) + channel[None, :], mask=inside[:, None], other=0.0)
        scores = tl.dot(q, k, input_precision="ieee") * scale
        scores = tl.where(key[None, :] <= last[:, None], scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))  # finite from the first block on: all may see key 0
        weights = tl.exp2(scores - larger[:, None])
        fade = tl.exp2(largest - larger)
        total = total * fade + tl.sum(weights, 1)
        mixed = mixed * fade[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        largest = larger
    there = out + (first + offset)[:, None] * (query_heads * size) + place
    tl.store(there, (mixed / total[:, None]).to(out.dtype.element_ty), mask=real)


@triton.jit
def _swiglu(gate, up):
    """silu(gate) * up, rounded where torch's two operations round."""
    wide = gate.to(tl.float32)
    active = (wide / (1 + tl.exp(-wide))).to(gate.dtype)
    return (active.to(tl.float32) * up.to(tl.float32)).to(gate.dtype)


@triton.jit
def swiglu_kernel(gate_up, out, size, block: tl.constexpr):
    """[N, 2F] -> [N, F]."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    inside = column < size
    gate = tl.load(gate_up + row * 2 * size + column, mask=inside, other=0.0)
    up = tl.load(gate_up + row * 2 * size + size + column, mask=inside, other=0.0)
    tl.store(out + row * size + column, _swiglu(gate, up), mask=inside)


@triton.jit
def quantize_kernel(x, values, scales, size, cap, joined: tl.constexpr, block: tl.constexpr):
    """A row [F] to FP8 and its scale; with ``joined``, of SwiGLU of a row [2F]. As fp8.quantize_activation."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    inside = column < size
    if joined:
        gate = tl.load(x + row * 2 * size + column, mask=inside, other=0.0)
        narrow = _swiglu(gate, tl.load(x + row * 2 * size + size + column, mask=inside, other=0.0))
    else:
        narrow = tl.load(x + row * size + column, mask=inside, other=0.0)
    wide = narrow.to(tl.float32)
    magnitude = tl.abs(wide)
    broken = tl.max((magnitude < float("inf")).to(tl.int32) ^ 1, 0)  # of NaN every comparison is false
    scale = tl.div_rn(tl.minimum(tl.maximum(tl.max(magnitude, 0), 1e-30), cap), 448.0)
    scale = tl.where(broken > 0, float("nan"), scale)
    quotient = tl.div_rn(wide, tl.zeros((block,), tl.float32) + scale)
    quotient = tl.minimum(tl.maximum(quotient, -448.0), 448.0)
    tl.store(values + row * size + column, quotient.to(tl.float8e4nv), mask=inside)
    tl.store(scales + row, scale)


def turn_and_write(heads: Tensor, turn: Tensor | None, slots: Tensor, pages: Tensor) -> None:
    """Turn queries in place, write keys and values to their slots.

    Args:
        heads: [N, H + 2K, C], contiguous; two channels that RoPE turns together are neighbours.
        turn: [N, 1, C/2] complex, of length 1; None where queries and keys have been turned.
        slots: [N] integers, page * S + offset.
        pages: one layer's.
    """
    count, every, size = heads.shape
    kv_heads, page_size = pages.shape[1] // 2, pages.shape[2]
    block = max(1024 // size, 1)
    angles = heads if turn is None else torch.view_as_real(turn)
    turn_and_write_kernel[count, triton.cdiv(every, block)](
        heads, angles, slots, pages, every - 2 * kv_heads, kv_heads, size, page_size, turn is not None, block
    )


def decode_blocks(dtype: torch.dtype, segments: int, kv_heads: int) -> tuple[int, int]:
    """Keys that :func:`attend_decoding` takes at once, and how many such blocks a split has at least."""
    return (64 if dtype.itemsize == 2 else 32), (2 if segments * kv_heads < PROGRAMS // 4 else 4)


def splits_for(segments: int, kv_heads: int, keys: int, least: int) -> int:
    """Into how many parts of at least ``least`` keys a segment's are cut at the most, if none has more than ``keys``.

    Where there are more segments, each may still be far longer than the others; parts that stay empty cost little.
    Results do not depend on ``keys``: a length that fits one part is never cut.
    """
    if keys <= least:
        return 1
    return min(max(triton.next_power_of_2(triton.cdiv(PROGRAMS, segments * kv_heads)), LEAST_SPLITS), MOST_SPLITS)


def attend_decoding(
    heads: Tensor, pages: Tensor, tables: Tensor, width: Tensor, keys: int, segments: Tensor, out: Tensor
) -> None:
    """Attention of segments that feed one token each.

    Args:
        heads: [N, H + 2K, C], contiguous.
        pages: one layer's.
        tables: block tables, row after row, int32; ``width`` [1] is P.
        keys: a bound to the lengths.
        segments: [R, 3] int32: the token's index in N, the row of its table, the number of its keys. Those without
            keys give zeros.
        out: [N, H, C], contiguous; the segments' tokens are written.
    """
    _, every, size = heads.shape
    kv_heads, page_size, count = pages.shape[1] // 2, pages.shape[2], len(segments)
    query_heads = every - 2 * kv_heads
    block, least = decode_blocks(heads.dtype, count, kv_heads)
    splits = splits_for(count, kv_heads, keys, block * least)
    group = max(triton.next_power_of_2(query_heads // kv_heads), LEAST_ROWS)
    partial = norms = out
    if splits > 1:
        partial = torch.empty((count, query_heads, splits, size), dtype=torch.float32, device=out.device)
        norms = torch.empty((count, query_heads, splits), dtype=torch.float32, device=out.device)
    attend_decoding_kernel[count, kv_heads, splits](
        heads, pages, tables, width, segments, out, partial, norms, size**-0.5 * LOG2_E,
        query_heads, kv_heads, size, page_size, group, block, splits, least,
        num_warps=4, num_stages=stages(heads),
    )  # fmt: skip
    if splits > 1:
        join_splits_kernel[count, query_heads](partial, norms, segments, out, query_heads, size, splits)


def stages(heads: Tensor) -> int:
    """Depth of the loops' pipeline: with 5 two blocks of keys are on their way, as shared memory allows."""
    if heads.dtype.itemsize > 2:
        return 1
    return 5 if heads.shape[2] <= 128 else 3


def prompt_rows(group: int, dtype: torch.dtype) -> tuple[int, int]:
    """Rows of queries that :func:`attend_prompts` takes at once, and how many tokens those are."""
    rows = max(128 if dtype.itemsize == 2 else 32, triton.next_power_of_2(group))
    return rows, rows // group


def attend_prompts(heads: Tensor, pages: Tensor, tables: Tensor, width: Tensor, plan: Tensor, out: Tensor) -> None:
    """Causal attention of runs of prompts' tokens to all keys before them and their own.

    Args:
        plan: [B, 4] int32, each a run of at most as many tokens as :func:`prompt_rows` says: the first's index in N,
            their number, the first's position, the row of their table.

    The others are :func:`attend_decoding`'s.
    """
    _, every, size = heads.shape
    kv_heads, page_size = pages.shape[1] // 2, pages.shape[2]
    query_heads, narrow = every - 2 * kv_heads, heads.dtype.itemsize == 2
    rows, _ = prompt_rows(query_heads // kv_heads, heads.dtype)
    attend_prompts_kernel[len(plan), kv_heads](
        heads, pages, tables, width, plan, out, size**-0.5 * LOG2_E,
        query_heads, kv_heads, size, page_size, rows, 64 if narrow else 32,
        num_warps=8, num_stages=stages(heads),
    )  # fmt: skip


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up, [N, F], of both joined [N, 2F], contiguous."""
    count, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((count, size), dtype=gate_up.dtype, device=gate_up.device)
    swiglu_kernel[count, triton.cdiv(size, 1024)](gate_up, out, size, 1024)
    return out


def quantize_rows(x: Tensor, cap: float, *, joined: bool = False) -> tuple[Tensor, Tensor]:
    """As :func:`herdlm.generate.fp8.quantize_activation` by rows, of x [N, F] contiguous; ``joined``: of :func:`swiglu`."""
    count, size = x.shape[0], x.shape[1] // 2 if joined else x.shape[1]
    values = torch.empty((count, size), dtype=FP8, device=x.device)
    scales = torch.empty((count, 1), dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(size)
    quantize_kernel[count,](x, values, scales, size, cap, joined, block, num_warps=min(max(block // 1024, 1), 16))
    return values, scales
