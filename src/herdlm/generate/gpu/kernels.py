"""The kernels of generation on a GPU, in Triton; :mod:`herdlm.generate.gpu.launches` launches them.

torch installs Triton with CUDA; nothing imports this file elsewhere. With ``TRITON_INTERPRET=1`` in the environment
Triton runs the same kernels on CPU tensors; the tests use that.

Letters: N tokens of a step, R segments, H query heads, K key/value heads, G = H / K, C head size, S tokens per page, P
pages in a block table. Pages are those of :class:`herdlm.generate.paged_attention.PagedCache`, [pages, 2K, S, C]; heads
come as they leave the joined product, [N, H + 2K, C]: queries, keys, values.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rotate_and_write_kernel(
    heads,
    rotation,
    slots,
    pages,
    query_heads: tl.constexpr,
    kv_heads: tl.constexpr,
    size: tl.constexpr,
    page_size: tl.constexpr,
    rotate: tl.constexpr,
    block: tl.constexpr,
):
    """Rotate a token's queries in place; write its rotated keys and its values to their page. ``block`` heads each."""
    token = tl.program_id(0).to(tl.int64)
    every: tl.constexpr = query_heads + 2 * kv_heads
    head = tl.program_id(1) * block + tl.arange(0, block)
    channel = tl.arange(0, size)
    here = heads + token * (every * size) + head[:, None] * size + channel[None, :]
    inside = (head < every)[:, None] & (channel >= 0)[None, :]
    x = tl.load(here, mask=inside, other=0.0)
    if rotate:
        pair = tl.arange(0, size // 2)
        cosine = tl.load(rotation + token * size + pair * 2)[None, :]
        sine = tl.load(rotation + token * size + pair * 2 + 1)[None, :]
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
    heads,
    pages,
    tables,
    width,
    segments,
    out,
    partial,
    norms,
    scale,
    query_heads: tl.constexpr,
    kv_heads: tl.constexpr,
    size: tl.constexpr,
    page_size: tl.constexpr,
    group: tl.constexpr,
    block: tl.constexpr,
    splits: tl.constexpr,
    least_blocks: tl.constexpr,
):
    """One key/value head's queries of a segment against a run of its keys ("flash decoding").

    Each split derives its share of the keys from the length at run time. With one split the result goes to ``out``,
    else to ``partial`` [R, H, splits, C] with its base-2 log-sum-exp in ``norms`` [R, H, splits].
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
):
    """Combine the splits of one segment's head by their log-sum-exp."""
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
    heads,
    pages,
    tables,
    width,
    plan,
    out,
    scale,
    query_heads: tl.constexpr,
    kv_heads: tl.constexpr,
    size: tl.constexpr,
    page_size: tl.constexpr,
    rows: tl.constexpr,
    block: tl.constexpr,
):
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
        larger = tl.maximum(largest, tl.max(scores, 1))  # finite from the first block on: every query sees key 0
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
    """Round a row [F] to FP8, or with ``joined`` SwiGLU of a row [2F], as ``fp8.linear.quantize_activation``."""
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
    broken = tl.max((magnitude < float("inf")).to(tl.int32) ^ 1, 0)  # every comparison with NaN is false
    scale = tl.div_rn(tl.minimum(tl.maximum(tl.max(magnitude, 0), 1e-30), cap), 448.0)
    scale = tl.where(broken > 0, float("nan"), scale)
    quotient = tl.div_rn(wide, tl.zeros((block,), tl.float32) + scale)
    quotient = tl.minimum(tl.maximum(quotient, -448.0), 448.0)
    tl.store(values + row * size + column, quotient.to(tl.float8e4nv), mask=inside)
    tl.store(scales + row, scale)
