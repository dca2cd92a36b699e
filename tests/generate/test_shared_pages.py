"""Pages in common: against the definition, and attention over them against attention without sharing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from herdlm.generate import Engine, SamplingParams, pages
from herdlm.generate.paged_attention import attention_with_norm
from herdlm.generate.pages import WORTH_PAGES, find_shared
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import build, initialize

pytestmark = pytest.mark.usefixtures("forms")


@st.composite
def forests(draw):
    """Tables grown as samples are: copies of another's beginning, then pages of their own."""
    fresh = iter(range(1, 10_000))
    tables = [[next(fresh) for _ in range(draw(st.integers(1, 30)))]]
    for _ in range(draw(st.integers(0, 9))):
        parent = draw(st.sampled_from(tables))
        kept = parent[: draw(st.integers(0, len(parent)))]
        tables.append(kept + [next(fresh) for _ in range(draw(st.integers(0 if kept else 1, 12)))])
    full = [draw(st.integers(0, len(table))) for table in tables]
    wide = np.zeros((len(tables), max(map(len, tables))), dtype=np.int64)
    for row, table in enumerate(tables):
        wide[row, : len(table)] = table
    return wide, np.array(full)


@given(forests())
def test_runs_follow_on_one_another_hold_the_same_pages_and_are_worth_it(forest):
    tables, full = forest
    done = np.zeros(len(tables), dtype=np.int64)
    for rows, begin, end in find_shared(tables, full):
        assert len(set(rows.tolist())) == len(rows)
        assert (done[rows] == begin).all()
        assert (full[rows] >= end).all()
        assert (tables[rows, begin:end] == tables[rows[:1], begin:end]).all()
        assert (len(rows) - 1) * (end - begin) >= WORTH_PAGES
        done[rows] = end


def test_a_system_prompt_and_the_samples_of_each_prompt_are_two_levels():
    tables = np.array([[1, 2, *range(10 * p, 10 * p + 9), 100 + s] for p in (1, 2, 3) for s in range(4 * p, 4 * p + 4)])
    order = np.random.default_rng(0).permutation(12)
    found = [(sorted(order[rows].tolist()), b, e) for rows, b, e in find_shared(tables[order], np.full(12, 11))]
    assert found == [(list(range(12)), 0, 2), ([0, 1, 2, 3], 2, 11), ([4, 5, 6, 7], 2, 11), ([8, 9, 10, 11], 2, 11)]


@pytest.mark.parametrize("heads", [(4, 2), (3, 1), (2, 2)])
def test_samples_that_share_are_as_if_they_did_not(heads, monkeypatch):
    config = ModelConfig(
        vocab_size=61, dim=24, layers=2, heads=heads[0], kv_heads=heads[1], ffn_dim=40, max_seq_len=256
    )
    model = build(config)
    initialize(model, seed=1, std=0.3)
    rng = np.random.default_rng(5)
    system = rng.integers(0, 61, 50).tolist()
    prompts = [system + rng.integers(0, 61, n).tolist() for n in (40, 1, 45)]
    params = SamplingParams(max_tokens=20, n=5, seed=3)
    found = []

    def counted(*arguments):
        runs = list(find_shared(*arguments))
        found.extend(runs)
        return iter(runs)

    monkeypatch.setattr("herdlm.generate.paged_attention.find_shared", counted)
    shared = Engine(model, None, page_size=4).generate(prompts, params)
    assert {begin > 0 for _, begin, _ in found} == {True, False}, "one level only was tried"
    monkeypatch.setattr(pages, "WORTH_PAGES", 10**9)
    found.clear()
    alone = Engine(model, None, page_size=4).generate(prompts, params)
    assert not found
    for a, b in zip(shared, alone, strict=True):
        for one, other in zip(a, b, strict=True):
            assert one.tokens == other.tokens
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_norm_is_the_log_sum_exp_of_the_scores(masked, dtype):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=generator, dtype=dtype) for n in (4, 9, 9))
    mask = torch.zeros(2, 1, 4, 9, dtype=dtype).masked_fill(
        torch.rand(2, 1, 4, 9, generator=generator) < 0.3, -torch.inf
    )
    out, norm = attention_with_norm(q, k, v, mask if masked else None, wanted=True)
    scores = q @ k.mT / 8**0.5 + (mask if masked else 0)
    assert torch.allclose(norm, scores.logsumexp(-1), atol=1e-5)
    assert torch.allclose(out, scores.softmax(-1) @ v, atol=1e-5)
