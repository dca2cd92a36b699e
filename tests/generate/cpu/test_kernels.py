"""Code compiled for the processor, against torch's own operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.generate.cpu import compiled
from herdlm.generate.sampling.sampling import Draw, draw_tokens
from herdlm.model.config import ModelConfig

pytest.importorskip("numba", reason="the extra cpu is not installed")

from herdlm.generate.cpu import kernels as cpu_kernels


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("heads", "kv_heads", "size", "page_size"), [(8, 4, 64, 16), (3, 1, 24, 4), (2, 2, 10, 7)])
def test_rows_attend_as_a_softmax_over_their_keys(stored, threads, heads, kv_heads, size, page_size, monkeypatch):
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    reach = np.array([1, page_size, page_size + 1, 5 * page_size - 1, 90])
    skipped = np.array([0, 0, 1, 2, 0])
    pages = -(-reach // page_size)
    tables = np.zeros((5, pages.max()), dtype=np.int64)
    numbers = iter(generator.permutation(pages.sum()) + 1)
    for row, count in enumerate(pages):
        tables[row, :count] = [next(numbers) for _ in range(count)]
    layer = torch.randn(pages.sum() + 1, 2, kv_heads, page_size, size).to(stored)
    layer[0] = torch.nan  # the page that no row has
    queries = (3 * torch.randn(7, heads, size)).to(stored)
    at = np.array([6, 0, 2, 3, 5])
    out, norms = torch.full_like(queries, 77), torch.full((7, heads), torch.nan)

    def expected(row: int, seen: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixed values and the log-sum-exp of scores, in float64."""
        keys, values = layer[tables[row]].double().permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, seen]
        scores = queries[at[row]].double().view(kv_heads, -1, size) @ keys.transpose(1, 2) / size**0.5
        return (scores.softmax(-1) @ values).view(heads, size), scores.logsumexp(-1).flatten()

    for row in np.flatnonzero(skipped):  # what was attended to before
        mixed, norm = expected(row, slice(skipped[row] * page_size))
        out[at[row]], norms[at[row]] = mixed.to(stored), norm.float()
    monkeypatch.setattr(cpu_kernels, "SPLIT_FROM", 64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        plan = cpu_kernels.CompiledPages([layer]).plan(at, tables, skipped, reach, heads * size)
        assert len(plan.parts) == threads
        plan.attend(0, queries, out, norms)
    finally:
        torch.set_num_threads(before)
    assert (out[[1, 4]] == 77).all()
    near = 1e-5 if stored == torch.float32 else 2e-2
    for row, n in enumerate(at):
        torch.testing.assert_close(out[n].double(), expected(row, slice(reach[row]))[0], rtol=near, atol=near)


def test_bfloat16_is_rounded_as_torch_rounds_it():
    values = torch.cat([torch.randn(512), torch.tensor([1.00390625, 1.01171875, 3e38, -3e38, 0.0, 1e-38])])
    layer = torch.zeros(1, 2, 1, 1, len(values), dtype=torch.bfloat16)
    layer[0, 1, 0, 0] = values.to(torch.bfloat16)
    query = torch.zeros(1, 1, len(values), dtype=torch.bfloat16)
    out, norms = torch.empty_like(query), torch.empty(1, 1)
    one = np.array([1])
    plan = cpu_kernels.CompiledPages([layer]).plan(np.array([0]), np.array([[0]]), np.array([0]), one, len(values))
    plan.attend(0, query, out, norms)
    assert torch.equal(out[0, 0], values.to(torch.bfloat16))


def test_keys_and_values_lie_where_they_were_put():
    layer = torch.zeros(4, 2, 3, 5, 8)
    both = torch.randn(6, 2, 3, 8).transpose(1, 2)  # strided, as they come from one product
    slots = np.array([3, 19, 0, 7, 8, 12])
    cpu_kernels.CompiledPages([layer]).write(0, slots, both[:, :, 0], both[:, :, 1])
    for n, slot in enumerate(slots):
        assert torch.equal(layer[slot // 5, :, :, slot % 5], both[n].transpose(0, 1))
    assert int((layer != 0).any(-1).sum()) == 6 * 2 * 3


def test_norms_and_gates_are_torchs_at_any_size_of_number():
    x = torch.randn(5, 48) * torch.tensor([1.0, 1e-12, 1e12, 1e3, 0.0])[:, None]
    weight = torch.randn(48)
    torch.testing.assert_close(
        cpu_kernels.norm(x, weight * 48**0.5, 48e-5), F.rms_norm(x, (48,), weight, 1e-5), rtol=1e-6, atol=1e-6
    )
    joined = torch.randn(6, 40) * torch.tensor([1.0, 30.0, 100.0, 1e6, 1e-6, 0.0])[:, None]
    gate, up = joined.chunk(2, dim=-1)
    torch.testing.assert_close(cpu_kernels.gated(joined), F.silu(gate) * up, rtol=2e-6, atol=1e-20)
    assert cpu_kernels.norm(x * torch.nan, weight, 1e-5).isnan().all()
    assert cpu_kernels.gated(torch.full((1, 4), torch.nan)).isnan().all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([1, 2, 255, 256, 257, 3000]), st.sampled_from([0.3, 1.0, 1.7]))
def test_draws_are_those_of_the_other_form(seed, vocabulary, temperature):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(8, vocabulary, generator=generator)
    logits[:, torch.rand(vocabulary, generator=generator) < 0.3] = -torch.inf
    logits[:, seed % vocabulary] = 1.0
    uniforms = np.random.default_rng(seed).random(8, dtype=np.float32)
    uniforms[:2] = 0, np.nextafter(np.float32(1), np.float32(0))
    temperatures = np.full(8, temperature, dtype=np.float32)
    rest = np.ones(8, np.float32), np.zeros(8, np.int64), np.zeros(8, np.float32)
    tokens, logprobs = cpu_kernels.draw(logits, temperatures, uniforms)
    expected, expected_logprobs = draw_tokens(logits, Draw(temperatures, *rest, uniforms))
    # Sums are taken in another order: a draw may fall to a neighbor where the uniform number lies at its border.
    shares = (logits.double() / temperature).softmax(-1)
    ends = shares.cumsum(-1)
    for row, (token, other) in enumerate(zip(tokens.tolist(), expected.tolist(), strict=True)):
        assert shares[row, token] > 0
        if token == other:
            torch.testing.assert_close(logprobs[row], expected_logprobs[row], rtol=1e-5, atol=1e-5)
        else:
            assert float((ends[row] - float(uniforms[row])).abs().min()) < 1e-5


def test_logits_that_are_not_numbers_give_a_token_and_a_log_probability_that_is_not_one():
    logits = torch.full((1, 300), torch.nan)
    tokens, logprobs = cpu_kernels.draw(logits, np.ones(1, np.float32), np.full(1, 0.5, np.float32))
    assert 0 <= int(tokens) < 300
    assert logprobs.isnan().all()


def test_large_models_on_processors_are_compiled_and_no_others(monkeypatch):
    large = ModelConfig(vocab_size=32_000, dim=512, layers=12, heads=8, kv_heads=4, ffn_dim=1376)
    small = ModelConfig(vocab_size=400, dim=64, layers=2, heads=2, kv_heads=2, ffn_dim=96)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert compiled.worth_compiling(large, cpu, torch.float32)
    assert compiled.worth_compiling(large, cpu, torch.bfloat16)
    assert not compiled.worth_compiling(large, cpu, torch.float64)
    assert not compiled.worth_compiling(large, gpu, torch.bfloat16)
    assert not compiled.worth_compiling(small, cpu, torch.float32)
    monkeypatch.setattr(compiled, "find_spec", lambda name: None)
    assert not compiled.worth_compiling(large, cpu, torch.float32)
