"""The model against straightforward arithmetic: attention paths, packing, counts, initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from herdlm.model.attention import DocumentAttention
from herdlm.model.config import ModelConfig, RopeScaling
from herdlm.model.rope import inverse_frequencies, rotate, rotation
from herdlm.model.transformer import Transformer, build, initialise

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


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("path", ["one document each", "dense mask", "loop"])
def test_attention_and_its_gradients_equal_plain_arithmetic(
    path: str, kv_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = documents_of((24,), (24,)) if path == "one document each" else documents_of((9, 1, 14), (20, 4))
    if path == "loop":
        monkeypatch.setattr(DocumentAttention, "LOOP_FROM", 8)
    attend = DocumentAttention(documents)
    assert {"one document each": attend.one_each, "dense mask": attend.mask is not None, "loop": bool(attend.spans)}[
        path
    ]
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 24, heads, 8) for heads in (4, kv_heads, kv_heads)]
    ours = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    plain = [t.detach().clone().requires_grad_() for t in ours]
    weights = torch.randn(2, 24, 4, 8, generator=generator, dtype=torch.float64)
    out, expected = attend(0, ours[0], ours[1], ours[2]), plain_attention(documents, plain[0], plain[1], plain[2])
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-12, rtol=0)


def test_loop_and_mask_agree_at_the_length_where_they_change() -> None:
    length = DocumentAttention.LOOP_FROM
    documents = documents_of((200, 12, length - 212), (length - 1, 1))
    loop = DocumentAttention(documents)
    assert loop.mask is None and len(loop.spans) == 5
    shorter = DocumentAttention(documents[:, : length - 1])
    assert shorter.mask is not None
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, length, 2, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    cut = [t[:, : length - 1] for t in (q, k, v)]
    torch.testing.assert_close(loop(0, q, k, v)[:, :-1], shorter(0, cut[0], cut[1], cut[2]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("loop_from", [512, 4])
def test_packed_documents_give_the_states_of_separate_rows(loop_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DocumentAttention, "LOOP_FROM", loop_from)
    model = build(SMALL)
    initialise(model, 3, std=0.2)
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
    initialise(straight, 7)
    initialise(turned, 7)
    other = build(SMALL)
    initialise(other, 8)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, turned.state_dict()[name]), name
        assert value.ndim == 1 or not torch.equal(value, other.state_dict()[name]), name


def test_initial_spreads() -> None:
    config = SMALL.model_copy(update={"dim": 128, "ffn_dim": 256, "vocab_size": 512})
    model = build(config)
    initialise(model, 0, std=0.05, embedding_std=0.1)
    state = model.state_dict()
    assert state["model.layers.1.mlp.up_proj.weight"].std().item() == pytest.approx(0.05, rel=0.05)
    assert state["model.layers.1.mlp.down_proj.weight"].std().item() == pytest.approx(0.05 / 6**0.5, rel=0.05)
    assert state["lm_head.weight"].std().item() == pytest.approx(0.1, rel=0.05)
    assert bool((state["model.norm.weight"] == 1).all())
    initialise(model, 0, zero_residual=True)
    assert not model.state_dict()["model.layers.0.self_attn.o_proj.weight"].any()
    assert model.state_dict()["model.layers.0.self_attn.q_proj.weight"].any()


def test_a_new_reward_model_scores_all_alike() -> None:
    model = build(SMALL.model_copy(update={"head": "score"}))
    initialise(model, 0)
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
        ({"rope_scaling": {"low_freq_factor": 4.0}}, "high_freq_factor 4.0 is not above low_freq_factor 4.0"),
    ],
)
def test_shapes_that_cannot_be(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ModelConfig.model_validate(SMALL.model_dump() | changes)
