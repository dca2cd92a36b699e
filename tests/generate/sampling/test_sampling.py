"""Drawing: the right distribution, the right filters, the same draw in any crowd."""

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import MinPLogitsWarper

from herdlm.base.errors import InputError
from herdlm.generate.request import SamplingParams
from herdlm.generate.sampling.sampling import CHUNK_BYTES, Draw, draw_tokens, sample_key, uniforms

DRAWS = 40_000


def draw(
    rows: int, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0, key: int = 7
) -> Draw:
    numbers = uniforms(np.full(rows, key, dtype=np.uint64), np.arange(rows))
    return Draw(
        np.full(rows, temperature, dtype=np.float32),
        np.full(rows, top_p, dtype=np.float32),
        np.full(rows, top_k, dtype=np.int64),
        np.full(rows, min_p, dtype=np.float32),
        numbers,
    )


def frequencies(logits: torch.Tensor, how: Draw) -> torch.Tensor:
    tokens, _ = draw_tokens(logits.expand(len(how.uniforms), -1), how)
    return torch.bincount(tokens, minlength=logits.shape[-1]) / len(how.uniforms)


LOGITS = torch.tensor([0.5, -torch.inf, 2.0, 1.0, -1.0, 2.0, -3.0, 0.0])


def test_uniforms_are_even_and_unrelated_between_keys_and_steps():
    first = uniforms(np.full(DRAWS, 3, dtype=np.uint64), np.arange(DRAWS))
    second = uniforms(np.full(DRAWS, 4, dtype=np.uint64), np.arange(DRAWS))
    for numbers in (first, second, uniforms(np.arange(DRAWS, dtype=np.uint64), np.zeros(DRAWS, dtype=np.int64))):
        assert 0 <= numbers.min() <= numbers.max() < 1
        counts = np.histogram(numbers, bins=50, range=(0, 1))[0]
        assert abs(counts - DRAWS / 50).max() < 6 * (DRAWS / 50) ** 0.5
        assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.03
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


def test_keys_differ_between_seeds_and_samples():
    assert len({sample_key(seed, index) for seed in range(30) for index in range(30)}) == 900


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_tokens_come_as_often_as_the_softmax_says(temperature):
    expected = torch.softmax(LOGITS / temperature, dim=0)
    assert (frequencies(LOGITS, draw(DRAWS, temperature)) - expected).abs().max() < 0.012


def test_a_token_of_probability_zero_is_never_drawn_even_at_the_ends():
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf])
    how = draw(2)
    how.uniforms[:] = [0.0, np.nextafter(np.float32(1), np.float32(0))]
    assert draw_tokens(logits.expand(2, -1), how)[0].tolist() == [1, 3]


@pytest.mark.parametrize(("top_p", "top_k"), [(0.6, 0), (0.3, 0), (1.0, 3), (0.8, 4), (1e-6, 0), (1.0, 1), (0.95, 99)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_top_k_then_top_p_against_a_plain_reading(top_p, top_k, temperature):
    probabilities = torch.softmax(LOGITS / temperature, dim=0).tolist()
    ranked = sorted(range(8), key=lambda i: (-probabilities[i], i))
    ranked = ranked[:top_k] if top_k else ranked
    whole = sum(probabilities[i] for i in ranked)
    kept, mass = [], 0.0
    for i in ranked:
        if mass / whole >= top_p:
            break
        kept.append(i)
        mass += probabilities[i]
    expected = torch.tensor([probabilities[i] / mass if i in kept else 0.0 for i in range(8)])
    got = frequencies(LOGITS, draw(DRAWS, temperature, top_p, top_k))
    assert (got - expected).abs().max() < 0.012
    assert not got[expected == 0].any()


@pytest.mark.parametrize("min_p", [0.05, 0.4, 1.0])
@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.8, 0), (1.0, 4)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_min_p_leaves_out_what_is_unlikely_beside_the_most_likely(min_p, top_p, top_k, temperature):
    warped = LOGITS[None] / temperature
    expected = torch.softmax(MinPLogitsWarper(min_p)(None, warped.clone()), dim=-1)[0]
    others = frequencies(LOGITS, draw(DRAWS, temperature, top_p, top_k)) > 0
    expected = expected * others / (expected * others).sum()
    got = frequencies(LOGITS, draw(DRAWS, temperature, top_p, top_k, min_p))
    assert (got - expected).abs().max() < 0.012
    assert not got[expected == 0].any()


@pytest.mark.parametrize("ranked", [2, 3, 7])
@pytest.mark.parametrize("levels", [3, 1000])
def test_looking_at_the_most_likely_first_changes_no_draw(ranked, levels, monkeypatch):
    random = torch.Generator().manual_seed(levels)
    logits = torch.randint(levels, (3000, 12), generator=random) * (6 / levels)  # few levels: many equal logits
    how = draw(3000)
    how.temperature[:] = np.resize([1.0, 0.7, 1.3, 2.0, 0.3], 3000)
    how.top_p[:] = np.resize([1.0, 0.9, 0.5, 0.2, 0.999, 0.7, 1e-6], 3000)
    how.top_k[:] = np.resize([2, 0, 3, 1, 0, 5, 0, 12, 0, 40, 7], 3000)
    how.min_p[:] = np.resize([0.0, 0.0, 0.3, 0.0, 1.0, 0.05], 3000)
    monkeypatch.setattr("herdlm.generate.sampling.sampling.RANKED", 12)
    expected = draw_tokens(logits, how)[0]
    monkeypatch.setattr("herdlm.generate.sampling.sampling.RANKED", ranked)
    assert draw_tokens(logits, how)[0].tolist() == expected.tolist()


def test_temperature_zero_takes_the_most_likely():
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    assert draw_tokens(logits, draw(50, 0.0))[0].tolist() == logits.argmax(-1).tolist()


def test_logprobs_are_of_the_whole_softmax_whatever_the_filters():
    logits = torch.randn(6, 30, generator=torch.Generator().manual_seed(0)) * 4
    for how in (draw(6), draw(6, 0.0), draw(6, 0.5), draw(6, 2.0, 0.5, 7)):
        tokens, logprobs = draw_tokens(logits, how)
        expected = torch.log_softmax(logits.double(), dim=-1)[torch.arange(6), tokens]
        assert (logprobs - expected).abs().max() < 1e-5


def test_a_draw_is_the_same_alone_and_in_a_mixed_crowd():
    rows = 3 * CHUNK_BYTES // (4 * 4096) // 2  # one and a half chunks
    logits = torch.randn(rows, 4096, generator=torch.Generator().manual_seed(1)) * 3
    how = draw(rows)
    how.temperature[:] = np.resize([1.0, 0.0, 0.7, 1.3], rows)
    how.top_p[:] = np.resize([1.0, 0.9, 0.5], rows)
    how.top_k[:] = np.resize([0, 0, 5, 0, 0], rows)
    together, logprobs = draw_tokens(logits, how)
    for row in range(0, rows, 5):
        token, logprob = draw_tokens(logits[row : row + 1], how.part(slice(row, row + 1)))
        assert token.item() == together[row].item()
        assert logprob.item() == pytest.approx(logprobs[row].item(), abs=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"n": 0},
        {"stop": "text"},
        {"stop": ("",)},
        {"stop": ["list"]},
        {"min_tokens": -1},
        {"min_tokens": 257},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("inf")},
        {"presence_penalty": float("nan")},
        {"frequency_penalty": float("inf")},
        {"logit_bias": ((1, 101.0),)},
        {"logit_bias": ((-1, 1.0),)},
        {"logit_bias": ((1, float("nan")),)},
        {"logit_bias": ((1, 1.0), (1, 2.0))},
        {"logit_bias": {1: 2.0}},
        {"best_of": 0},
        {"top_logprobs": -1},
        {"stop_tokens": (-1,)},
        {"stop_tokens": (1.5,)},
        {"stop_tokens": 3},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SamplingParams(**wrong)
