"""The model against straightforward arithmetic: attention paths, packing, counts, initial weights."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from herdlm.model import attention, tiles
from herdlm.model.attention import DocumentAttention
from herdlm.model.config import ModelConfig, RopeScaling
from herdlm.model.rope import inverse_frequencies
from herdlm.model.transformer import Transformer, build, initialize, rotate, rotation

SMALL = ModelConfig(vocab_size=97, dim=32, layers=3, heads=4, kv_heads=2, ffn_dim=48)


def documents_of(*rows: tuple[int, ...]) -> Tensor:
    """[B, T] document numbers from the document lengths of each row."""
    return torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in rows])


def plain_attention(documents: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token and head on its own: softmax of q k / sqrt(C) over earlier tokens of the same document."""
    out = torch.zeros_like(q)
    group = q.shape[2] // k.shape[2]
    for row in range(q.shape[0]):
        for at in range(q.shape[1]):
            seen = [j for j in range(at + 1) if documents[row, j] == documents[row, at]]
            for head in range(q.shape[2]):
                keys, values = k[row, seen, head // group], v[row, seen, head // group]
                weights = torch.softmax(keys @ q[row, at, head] / math.sqrt(q.shape[3]), dim=0)
                out[row, at, head] = weights @ values
    return out


def gradients_agree(ours: Callable[..., Tensor], plain: Callable[..., Tensor], shapes: list[tuple[int, ...]]) -> None:
    """Both functions of q, k and v give the same output and the same gradients in float64."""
    generator = torch.Generator().manual_seed(0)
    mine = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    theirs = [t.detach().clone().requires_grad_() for t in mine]
    out, expected = ours(*mine), plain(*theirs)
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)
    weights = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-12, rtol=0)


ROWS = {
    "one document each": ((24,), (24,)),
    "short documents": ((9, 1, 14), (20, 4)),
    "single tokens": ((1,) * 24, (23, 1)),
}


@pytest.fixture(autouse=True)
def tiles_for_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of these tests are short, which alone would take the dense mask."""
    monkeypatch.setattr("herdlm.model.attention.DENSE_UP_TO", 0)


def test_short_rows_take_the_dense_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("herdlm.model.attention.DENSE_UP_TO", 32)
    documents = torch.tensor([[0] * 9 + [1] * 23])
    assert not DocumentAttention(documents).tiled
    assert DocumentAttention(torch.cat([documents, documents + 1], dim=1)).tiled


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("way", ["one tile", "many tiles", "weights computed again", "dense"])
def test_attention_and_its_gradients_equal_plain_arithmetic(
    way: str, rows: str, kv_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "TILE", 64 if way == "one tile" else 7)
    monkeypatch.setattr(tiles, "KEPT_KEYS", 3 if way == "weights computed again" else 512)
    documents = documents_of(*ROWS[rows])
    attend = DocumentAttention(documents)
    assert (len(attend.plan.tiles) == 1) == (way in ("one tile",))
    ours = attend.dense if way == "dense" else partial(attend, 0)
    gradients_agree(ours, partial(plain_attention, documents), [(2, 24, heads, 8) for heads in (4, kv_heads, kv_heads)])


@pytest.mark.parametrize("length", [192, 193, 600])
def test_tiles_and_dense_mask_agree_around_the_length_of_a_tile(length: int) -> None:
    assert tiles.TILE == 192
    attend = DocumentAttention(documents_of((length, 20, 3), (100, 1, length - 78)))
    gradients_agree(partial(attend, 0), attend.dense, [(2, length + 23, heads, 8) for heads in (4, 2, 2)])


def test_bfloat16_tiles_are_as_exact_as_the_kernel_for_whole_rows() -> None:
    documents = documents_of((300, 40, 172), (512,))
    attend = DocumentAttention(documents)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 512, heads, 32, generator=generator).bfloat16() for heads in (4, 2, 2)]

    def results(function: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        leaves = [t.to(dtype).requires_grad_() for t in inputs]
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = function(*leaves)
        assert out.dtype == dtype
        return [out.detach(), *torch.autograd.grad(out.float().pow(2).sum(), leaves)]

    exact = results(attend.dense, torch.float64)
    ours, kernel = (results(way, torch.bfloat16) for way in (partial(attend, 0), attend.dense))
    for mine, theirs, truth in zip(ours, kernel, exact, strict=True):
        error, usual = ((t - truth).norm() / truth.norm() for t in (mine, theirs))
        assert error < 2 * usual and error < 0.01


@pytest.mark.parametrize("lengths", [(5, 3, 180, 4, 190, 2, 700, 1, 1), (1,), (192,), (193, 192, 1), (500, 500)])
def test_tiles_hold_every_query_once_and_its_whole_past(lengths: tuple[int, ...]) -> None:
    starts = [0, *accumulate(lengths)]
    planned = tiles.plan_tiles(starts)
    assert [t[0] for t in planned] == [0, *(t[1] for t in planned[:-1])] and planned[-1][1] == starts[-1]
    for begin, end, first, last in planned:
        assert 0 < end - begin <= tiles.TILE and last == end
        assert first in starts and first == max(start for start in starts if start <= begin)


@pytest.mark.parametrize("options", [{"window_size", "enable_gqa"}, {"window_size"}, {"is_causal"}])
def test_the_kernel_for_varying_lengths_is_called_causal(options: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The call, as each supported torch takes it; the kernel itself needs a GPU."""
    seen: dict[str, Any] = {}

    def kernel(
        q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, **given: Any
    ) -> Tensor:
        seen.update(
            given, shapes=(q.shape, k.shape, v.shape), cu=(cu_q.tolist(), cu_k.tolist()), longest=(max_q, max_k)
        )
        return q

    positional = list(inspect.signature(kernel).parameters.values())[:-1]
    named = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in options]
    monkeypatch.setattr(kernel, "__signature__", inspect.Signature([*positional, *named]), raising=False)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    attention.varlen_kernel.cache_clear()
    try:
        causal = attention.varlen_kernel()
    finally:
        attention.varlen_kernel.cache_clear()
    assert causal is not None
    q, k, v = (torch.zeros(2, 6, heads, 8) for heads in (4, 2, 2))
    attend = DocumentAttention(documents_of((4, 2), (6,)))
    attend.cumulative = torch.tensor(attend.starts)  # as on a GPU
    out = attend.varlen(causal, q, k, v)
    assert out.shape == q.shape
    assert seen["shapes"] == ((12, 4, 8), (12, 2, 8), (12, 2, 8)) and seen["cu"] == ([0, 4, 6, 12],) * 2
    assert seen["longest"] == (6, 6) and options == seen.keys() - {"shapes", "cu", "longest"}
    assert seen.get("window_size", (-1, 0)) == (-1, 0) and seen.get("is_causal", True) and seen.get("enable_gqa", True)


@pytest.mark.parametrize("tile", [192, 4])
def test_packed_documents_give_the_states_of_separate_rows(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", tile)
    model = build(SMALL)
    initialize(model, 3, std=0.2)
    lengths = (7, 1, 12)
    documents = documents_of(lengths)
    tokens = torch.randint(0, 97, documents.shape, generator=torch.Generator().manual_seed(2))
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    packed = model(tokens, positions, DocumentAttention(documents))
    begin = 0
    for n in lengths:
        alone = slice(begin, begin + n)
        row = model(tokens[:, alone], positions[:, alone], DocumentAttention(torch.zeros(1, n, dtype=torch.int64)))
        torch.testing.assert_close(packed[:, alone], row, atol=2e-5, rtol=0)
        begin += n


@pytest.mark.parametrize(
    ("dim", "layers", "heads", "ffn_dim", "parameters"),
    [
        (4096, 32, 32, 14_336, 8_030_261_248),
        (8192, 80, 64, 28_672, 70_553_706_496),
        (16_384, 126, 128, 53_248, 405_853_388_800),
    ],
)
def test_published_parameter_counts(dim: int, layers: int, heads: int, ffn_dim: int, parameters: int) -> None:
    config = ModelConfig(vocab_size=128_256, dim=dim, layers=layers, heads=heads, kv_heads=8, ffn_dim=ffn_dim)
    with torch.device("meta"):
        model = Transformer(config)
    assert config.parameters == sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("changes", [{"tied_embeddings": True}, {"head": "score"}, {"head_dim": 6}])
def test_counted_parameters_are_those_of_the_model(changes: dict[str, object]) -> None:
    config = ModelConfig.model_validate(SMALL.model_dump() | changes)
    assert config.parameters == sum(p.numel() for p in build(config).parameters())


def test_initial_weights_depend_on_names_alone() -> None:
    straight, turned = build(SMALL), build(SMALL)
    for module in turned.modules():
        module._modules = dict(reversed(module._modules.items()))
        module._parameters = dict(reversed(module._parameters.items()))
    names = [name for name, _ in straight.named_parameters()]
    assert [name for name, _ in turned.named_parameters()] == names[::-1]
    initialize(straight, 7)
    initialize(turned, 7)
    other = build(SMALL)
    initialize(other, 8)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, turned.state_dict()[name]), name
        assert value.ndim == 1 or not torch.equal(value, other.state_dict()[name]), name


def test_initial_spreads() -> None:
    config = SMALL.model_copy(update={"dim": 128, "ffn_dim": 256, "vocab_size": 512})
    model = build(config)
    initialize(model, 0, std=0.05, embedding_std=0.1)
    state = model.state_dict()
    assert state["model.layers.1.mlp.up_proj.weight"].std().item() == pytest.approx(0.05, rel=0.05)
    assert state["model.layers.1.mlp.down_proj.weight"].std().item() == pytest.approx(0.05 / 6**0.5, rel=0.05)
    assert state["lm_head.weight"].std().item() == pytest.approx(0.1, rel=0.05)
    assert bool((state["model.norm.weight"] == 1).all())
    initialize(model, 0, zero_residual=True)
    assert not model.state_dict()["model.layers.0.self_attn.o_proj.weight"].any()
    assert model.state_dict()["model.layers.0.self_attn.q_proj.weight"].any()


def test_biases_begin_at_zero() -> None:
    model = build(SMALL.model_copy(update={"attention_bias": True, "mlp_bias": True}))
    initialize(model, 0)
    biases = [value for name, value in model.state_dict().items() if name.endswith(".bias")]
    assert len(biases) == 7 * SMALL.layers and not any(bool(bias.any()) for bias in biases)


def test_a_new_reward_model_scores_all_alike() -> None:
    model = build(SMALL.model_copy(update={"head": "score"}))
    initialize(model, 0)
    assert not model.scores(torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))).any()


def test_rope_sees_distances_only() -> None:
    frequencies = inverse_frequencies(SMALL)
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator)

    def product(at_q: int, at_k: int) -> float:
        turned = [rotate(x, *rotation(torch.tensor([[at]]), frequencies)) for x, at in ((q, at_q), (k, at_k))]
        return float((turned[0] * turned[1]).sum())

    assert product(5, 2) == pytest.approx(product(105, 102), abs=1e-4)
    assert abs(product(5, 2) - product(5, 3)) > 1e-2


def test_rope_scaling_slows_the_slow_pairs_alone() -> None:
    scaling = RopeScaling()
    plain = inverse_frequencies(SMALL.model_copy(update={"head_dim": 128}))
    scaled = inverse_frequencies(SMALL.model_copy(update={"head_dim": 128, "rope_scaling": scaling}))
    wavelengths = 2 * math.pi / plain
    fast, slow = wavelengths < 8192 / 4, wavelengths > 8192
    torch.testing.assert_close(scaled[fast], plain[fast], rtol=1e-6, atol=0)
    torch.testing.assert_close(scaled[slow], plain[slow] / 8, rtol=1e-6, atol=0)
    between = ~(fast | slow)
    assert between.any() and bool(((scaled < plain) & (scaled > plain / 8))[between].all())


def test_rope_stays_float32_when_the_model_changes_type() -> None:
    model = build(SMALL, dtype=torch.bfloat16)
    assert model.model.norm.weight.dtype == torch.bfloat16
    assert torch.equal(model.frequencies, inverse_frequencies(SMALL))
    later = build(SMALL).to(torch.bfloat16)
    assert torch.equal(later.frequencies, inverse_frequencies(SMALL))


def test_a_tied_head_is_the_embedding() -> None:
    model = build(SMALL.model_copy(update={"tied_embeddings": True}))
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dim": 30}, "dim 30 is not a multiple of heads 4"),
        ({"kv_heads": 3}, "heads 4 is not a multiple of kv_heads 3"),
        ({"head_dim": 7}, "head size 7 is odd"),
        ({"attention_bias": True, "family": "qwen2"}, "attention_bias is a key of the llama family, not of qwen2"),
        ({"rope_scaling": {"rope_type": "linear", "beta_fast": 16}}, "rope_type linear does not read beta_fast"),
        ({"rope_scaling": {"rope_type": "yarn"}, "rope_theta": 1.0}, "rope_theta 1.0 is not above 1"),
        ({"rope_scaling": {"low_freq_factor": 4.0}}, "high_freq_factor 4.0 is not above low_freq_factor 4.0"),
    ],
)
def test_shapes_that_cannot_be(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ModelConfig.model_validate(SMALL.model_dump() | changes)
