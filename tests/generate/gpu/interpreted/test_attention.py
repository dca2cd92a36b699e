"""Attention by the kernels against attention written out, and against the plain form, over steps of every kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from herdlm.generate.gpu import launches as gpu_launches
from herdlm.generate.gpu import plan as gpu_plan
from herdlm.generate.gpu.attention import KernelAttention, PlannedAttention, attention_type
from herdlm.generate.gpu.plan import AttentionPlan, plan_step
from herdlm.generate.paged_attention import PagedAttention, PagedCache, StepInput
from herdlm.model.config import ModelConfig

NEAR = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}
PAGES = 64


@dataclass
class Step:
    """A step over caches of random content."""

    cache: PagedCache
    other: PagedCache  # the same
    step: StepInput
    q: Tensor
    k: Tensor
    v: Tensor


def step(
    segments: list[tuple[int, int]],
    *,
    page_size: int = 4,
    group: int = 2,
    kv_heads: int = 2,
    size: int = 16,
    dtype: torch.dtype = torch.float32,
    shared: bool = False,
) -> Step:
    """A step of segments (tokens before it, tokens fed); ``shared``: whole pages of the first are the others' too."""
    heads = group * kv_heads
    config = ModelConfig(
        vocab_size=8, dim=heads * size, layers=1, heads=heads, kv_heads=kv_heads, ffn_dim=8, head_dim=size
    )
    cache, other = (PagedCache(config, PAGES, page_size, torch.device("cpu"), dtype) for _ in range(2))
    draw = torch.Generator().manual_seed(len(segments))
    cache.layers[0].copy_(torch.randn(cache.layers[0].shape, generator=draw))
    other.layers[0].copy_(cache.layers[0])
    begins, counts = np.array(segments).T
    held = -(-(begins + counts) // page_size)
    free = np.random.default_rng(3).permutation(np.arange(1, PAGES + 1))
    assert held.sum() <= PAGES
    tables = np.zeros((len(segments), held.max()), dtype=np.int64)
    for row, pages in enumerate(held):
        tables[row, :pages], free = free[:pages], free[pages:]
        if shared:
            common = min(begins[row], begins[0]) // page_size
            tables[row, :common] = tables[0, :common]
    owners = np.repeat(np.arange(len(segments)), counts)
    positions = np.concatenate([np.arange(begin, begin + count) for begin, count in segments])
    slots = tables[owners, positions // page_size] * page_size + positions % page_size
    count = len(positions)
    inputs = StepInput(np.zeros(count, np.int32), positions, slots, begins, counts, tables, np.zeros((2, 0), np.int64))
    # Strided, as they come out of the joined product.
    joined = torch.randn(1, count, heads + 2 * kv_heads, size, generator=draw).to(dtype)
    return Step(cache, other, inputs, *joined.split((heads, kv_heads, kv_heads), dim=2))


def written_out(given: Step) -> Tensor:
    """Attention in float64, token by token, of what ``other`` holds after the step's keys and values are written."""
    cache, step = given.other, given.step
    pages = cache.layers[0]
    for token, slot in enumerate(step.slots):
        page, offset = divmod(int(slot), cache.page_size)
        pages[page, : cache.kv_heads, offset] = given.k[0, token]
        pages[page, cache.kv_heads :, offset] = given.v[0, token]
    out = torch.zeros_like(given.q[0], dtype=torch.float64)
    owners = np.repeat(np.arange(len(step.counts)), step.counts)
    for token, (row, position) in enumerate(zip(owners, step.positions, strict=True)):
        seen = [(step.tables[row, at // cache.page_size], at % cache.page_size) for at in range(position + 1)]
        for head in range(out.shape[1]):
            mine = head // cache.group
            keys = torch.stack([pages[page, mine, offset] for page, offset in seen]).double()
            values = torch.stack([pages[page, cache.kv_heads + mine, offset] for page, offset in seen]).double()
            scores = keys @ given.q[0, token, head].double() / keys.shape[1] ** 0.5
            out[token, head] = scores.softmax(0) @ values
    return out


def check(given: Step) -> None:
    got = KernelAttention(given.cache, given.step)(0, given.q, given.k, given.v)
    assert got.shape == given.q.shape
    expected = written_out(given)
    assert (got[0].double() - expected).abs().max() < NEAR[given.q.dtype]
    assert torch.equal(given.cache.layers[0], given.other.layers[0])


MIXED = [(9, 1), (0, 7), (30, 1), (5, 3), (0, 1), (13, 19), (16, 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("group", "size"), [(1, 64), (3, 16), (4, 128), (8, 16)])
@pytest.mark.parametrize("page_size", [4, 16])
def test_a_mixed_step_is_attention_written_out(page_size, group, size, dtype):
    kv_heads = 2 if size == 16 else 1
    check(step(MIXED, page_size=page_size, group=group, kv_heads=kv_heads, size=size, dtype=dtype))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    segments=st.lists(st.tuples(st.integers(0, 40), st.sampled_from([1, 1, 2, 5, 16])), min_size=1, max_size=4),
    page_size=st.sampled_from([1, 3, 4, 16]),
    group=st.sampled_from([1, 2, 3, 5]),
    shared=st.booleans(),
)
def test_any_step_is_attention_written_out(segments, page_size, group, shared):
    held = sum(-(-(begin + count) // page_size) for begin, count in segments)
    scale = -(-held // PAGES)  # fewer tokens where pages are small
    check(
        step(
            [(begin // scale, min(count, 8 if scale > 1 else 16)) for begin, count in segments],
            page_size=page_size,
            group=group,
            kv_heads=1,
            shared=shared,
        )
    )


@pytest.mark.parametrize("segments", [[(33, 1), (17, 1), (40, 1)], [(33, 1), (8, 12), (30, 1)], [(0, 24), (12, 6)]])
def test_the_plain_form_says_the_same_where_pages_are_shared(segments):
    given = step(segments, shared=True)
    got = attention_type(given.cache)(given.cache, given.step)(0, given.q, given.k, given.v)
    expected = PagedAttention(given.other, given.step)(0, given.q, given.k, given.v)
    assert (got - expected).abs().max() < 2e-6
    assert torch.equal(given.cache.layers[0], given.other.layers[0])


def test_a_prompt_of_several_runs_is_cut_and_joined(monkeypatch):
    for module in (gpu_plan, gpu_launches):
        monkeypatch.setattr(module, "prompt_rows", lambda group, dtype: (16, 16 // group))
    given = step([(3, 21), (0, 40), (7, 1)], group=3, kv_heads=1)
    plan = plan_step(given.cache, given.step).prompts
    assert plan[:, 1].max() == 5 and plan[:, 1].sum() == 61
    ends = plan[:, 1] + plan[:, 2]
    assert bool((ends[:-1] >= ends[1:]).all())  # the longest first
    check(given)


def test_a_length_is_cut_the_same_whatever_the_bound():
    given = step([(13, 1), (40, 1), (0, 1)])
    plan = plan_step(given.cache, given.step)
    outs = []
    for keys in (48, 10_000):
        plan.keys = keys
        outs.append(PlannedAttention(given.cache, plan)(0, given.q, given.k, given.v))
    assert torch.equal(*outs)
    short = step([(13, 1), (9, 1)])
    plan = plan_step(short.cache, short.step)
    plan.keys = 16
    whole = PlannedAttention(short.cache, plan)(0, short.q, short.k, short.v)
    plan.keys = 10_000
    assert torch.equal(whole, PlannedAttention(short.cache, plan)(0, short.q, short.k, short.v))


@pytest.mark.parametrize("keys", [16, 10_000])  # one split, and several
def test_rows_of_padding_give_zeros_and_disturb_nothing(keys):
    given = step([(13, 1), (9, 1)])
    plan = plan_step(given.cache, given.step)
    slots = torch.cat((plan.slots, torch.zeros(2, dtype=torch.int32)))
    decoding = torch.cat((plan.decoding, torch.tensor([[2, 2, 0], [3, 3, 0]], dtype=torch.int32)))
    padded = AttentionPlan(slots, plan.tables, plan.width, keys, decoding, plan.prompts)
    q, k, v = (torch.cat((part, torch.full_like(part, torch.nan)), dim=1) for part in (given.q, given.k, given.v))
    got = PlannedAttention(given.cache, padded)(0, q, k, v)[0]
    expected = written_out(given)
    assert (got[:2].double() - expected).abs().max() < 2e-6
    assert bool((got[2:] == 0).all())
    assert torch.equal(given.cache.layers[0][1:], given.other.layers[0][1:])


def test_pages_beyond_32_bits_of_values_are_found():
    # Addresses are reckoned in 64 bits: what a page number times its size gives here does not fit into 31.
    size, page_size = 128, 16
    page = 2**31 // (2 * page_size * size) + 5
    pages = torch.from_numpy(np.zeros((page + 1) * 2 * page_size * size, np.float16)).view(-1, 2, page_size, size)
    heads = torch.randn(1, 3, size, generator=torch.Generator().manual_seed(0)).half()
    gpu_launches.rotate_and_write(heads, None, torch.tensor([page * page_size + 3], dtype=torch.int32), pages)
    assert torch.equal(pages[page, :, 3], heads[0, 1:])
    out = torch.empty(1, 1, size, dtype=torch.float16)
    slots, tables, width, decoding = (
        torch.tensor(numbers, dtype=torch.int32) for numbers in ([0], [page], [1], [[0, 0, 4]])
    )
    plan = AttentionPlan(slots, tables, width, 16, decoding, decoding[:0])
    gpu_launches.attend_decoding(heads, pages, plan, out)
    weights = torch.tensor([0.0, 0, 0, float(heads[0, 0].double() @ heads[0, 1].double()) / size**0.5]).softmax(0)
    assert (out[0, 0].double() - weights[3] * heads[0, 2].double()).abs().max() < 2e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("query_heads", "kv_heads", "size"), [(4, 2, 16), (3, 1, 64), (8, 8, 128)])
def test_queries_and_keys_are_turned_and_values_are_not(query_heads, kv_heads, size, dtype):
    draw = torch.Generator().manual_seed(1)
    heads = torch.randn(5, query_heads + 2 * kv_heads, size, generator=draw).to(dtype)
    angles = torch.randn(5, 1, size // 2, generator=draw) * 100
    rotation = torch.polar(torch.ones_like(angles), angles)
    pages = torch.zeros(9, 2 * kv_heads, 4, size, dtype=dtype)
    slots = torch.tensor([4, 7, 20, 33, 35], dtype=torch.int32)
    rotated = (
        torch.view_as_real(torch.view_as_complex(heads.float().unflatten(-1, (-1, 2))) * rotation).flatten(-2).to(dtype)
    )
    before = heads.clone()
    gpu_launches.rotate_and_write(heads, rotation, slots, pages)
    near = 1e-6 if dtype == torch.float32 else 2**-7
    assert (heads[:, :query_heads] - rotated[:, :query_heads]).abs().max() <= near
    for token, slot in enumerate(slots.tolist()):
        found = pages[slot // 4, :, slot % 4]
        assert (found[:kv_heads] - rotated[token, query_heads : query_heads + kv_heads]).abs().max() <= near
        assert torch.equal(found[kv_heads:], before[token, query_heads + kv_heads :])
    assert int(pages.ne(0).any(-1).sum()) == 5 * 2 * kv_heads
