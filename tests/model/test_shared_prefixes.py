"""Sequences read together, with what they share computed once, against each of them alone."""

import random

import pytest
import torch

from herdlm.model import shared_prefixes
from herdlm.model.attention import DocumentAttention
from herdlm.model.config import ModelConfig
from herdlm.model.shared_prefixes import last_hidden_states
from herdlm.model.transformer import build, initialize

SMALL = ModelConfig(vocab_size=97, dim=32, layers=3, heads=4, kv_heads=2, ffn_dim=48)


@pytest.fixture(scope="module", params=[2, 4])
def model(request):
    made = build(SMALL.model_copy(update={"kv_heads": request.param}))
    initialize(made, seed=0)
    return made


def alone(model, tokens):
    documents = torch.zeros(1, len(tokens), dtype=torch.int64)
    with torch.no_grad():
        return model(torch.tensor([tokens]), torch.arange(len(tokens))[None], DocumentAttention(documents))[0, -1]


def drawn(count):
    """Sequences that branch off from others, among them equal ones, beginnings of others, and some of one token."""
    draw = random.Random(0)
    made = [[draw.randrange(97) for _ in range(5)]]
    for _ in range(count):
        begun = draw.choice(made)
        made.append(begun[: draw.randrange(len(begun) + 1)] + draw.choices(range(97), k=draw.choice([0, 1, 3, 20, 70])))
    return [tokens or [1] for tokens in made] + [made[0], [96]]


@pytest.mark.parametrize(("tokens", "mask"), [(4096, 1 << 24), (40, 1 << 24), (1, 1), (4096, 1 << 9)])
def test_each_sequence_ends_as_it_does_alone(model, monkeypatch, tokens, mask):
    monkeypatch.setattr(shared_prefixes, "TOKENS_AT_ONCE", tokens)
    monkeypatch.setattr(shared_prefixes, "MASK_AT_ONCE", mask)
    sequences, seen = drawn(60), set()
    for numbers, hidden in last_hidden_states(model, sequences):
        for number, found in zip(numbers, hidden, strict=True):
            torch.testing.assert_close(found, alone(model, sequences[number]), atol=2e-5, rtol=1e-5)
        assert not seen & set(numbers)
        seen |= set(numbers)
    assert seen == set(range(len(sequences)))


def test_what_sequences_begin_with_is_computed_once(model, monkeypatch):
    read = []
    forward = type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda self, tokens, *rest: read.append(tokens.numel()) or forward(self, tokens, *rest)
    )
    sequences = [[*range(50), 1, 2, 3], [*range(60, 70)], [*range(50), 1, 4], [*range(50), 5], [*range(50), 1, 2, 3]]
    assert [numbers for numbers, _ in last_hidden_states(model, sequences)] == [[0, 4, 2, 3, 1]]
    assert read == [50 + 3 + 1 + 1 + 10]


def test_products_in_bfloat16_change_little_and_leave_the_weights(model):
    sequences = drawn(20)
    exact = {
        n: h for numbers, hidden in last_hidden_states(model, sequences) for n, h in zip(numbers, hidden, strict=True)
    }
    differences = [
        (h.float() - exact[n]).abs().max().item()
        for numbers, hidden in last_hidden_states(model, sequences, torch.bfloat16)
        for n, h in zip(numbers, hidden, strict=True)
    ]
    assert 0 < max(differences) < 0.1
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
