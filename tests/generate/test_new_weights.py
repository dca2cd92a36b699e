"""An engine that takes weights from memory computes what an engine of a loaded folder does, bit by bit."""

from __future__ import annotations

import pytest
import torch

from herdlm.base.errors import HerdError, InputError
from herdlm.generate import Engine, SamplingParams
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.folder import quantize_folder
from herdlm.generate.fp8.load import load_fp8
from herdlm.model.hf import load_folder, save_folder
from herdlm.model.transformer import initialize
from tests.conftest import small_model
from tests.generate.cpu.test_fused import BIASED

PROMPTS = [list(range(3, 30)), list(range(3, 20)), [7, 8, 9]]
SAMPLED = SamplingParams(max_tokens=12, n=3, temperature=0.9, seed=5, top_logprobs=400)
SHAPES = {"untied": {}, "tied": {"tied_embeddings": True}, "biased": BIASED}


def other_weights(**changes):
    """A model whose norms and biases are no ones and zeros."""
    model = small_model(seed=3, **changes)
    for number, parameter in enumerate(model.parameters()):
        if parameter.ndim == 1:
            with torch.no_grad():
                parameter.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(number))
    return model


@pytest.fixture(params=["float32", "bfloat16"])
def compute(request):
    return getattr(torch, request.param)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_those_of_a_freshly_loaded_engine(shape, compute, tmp_path):
    given = other_weights(**SHAPES[shape])
    save_folder(given, tmp_path, dtype=torch.float32)
    engine = Engine(small_model(**SHAPES[shape]), None, compute=compute)
    before = engine.generate(PROMPTS, SAMPLED)  # fills the prefix cache with keys and values of the old weights
    engine.take_weights(given.named_parameters())
    fresh = Engine(load_folder(tmp_path), None, compute=compute)
    after = engine.generate(PROMPTS, SAMPLED)
    assert after == fresh.generate(PROMPTS, SAMPLED)  # tokens, and the log-probabilities of the whole vocabulary
    assert after != before
    initialize(given, seed=8, std=0.2)  # training goes on: the engine keeps the weights that it took
    engine.pool.forget_contents()
    assert engine.generate(PROMPTS, SAMPLED) == after


def test_values_that_fit_16_bits_are_stored_in_them_again(compute, tmp_path):
    """As for a loaded folder: float32 matrices that hold BF16's values are packed where the processor gains by it."""
    given = other_weights().to(torch.bfloat16).float()
    save_folder(given, tmp_path, dtype=torch.float32)
    engine, fresh = Engine(other_weights(), None, compute=compute), Engine(load_folder(tmp_path), None, compute=compute)
    engine.take_weights(given.named_parameters())
    kinds = [[type(layer.out) for layer in each.model.model.layers] for each in (engine, fresh)]
    assert kinds[0] == kinds[1]
    assert engine.generate(PROMPTS, SAMPLED) == fresh.generate(PROMPTS, SAMPLED)


def test_the_weights_of_layers_may_come_in_another_order():
    given = other_weights()
    engine, other = Engine(small_model(), None), Engine(small_model(), None)
    engine.take_weights(given.named_parameters())
    other.take_weights(reversed(list(given.named_parameters())))
    assert engine.generate(PROMPTS, SAMPLED) == other.generate(PROMPTS, SAMPLED)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda named: {k: v for k, v in named.items() if k != "model.norm.weight"}, "model.norm.weight first"),
        (lambda named: named | {"model.layers.9.mlp.up_proj.weight": torch.zeros(1)}, "no weight model.layers.9"),
        (lambda named: named | {"model.norm.weight": torch.zeros(8)}, r"\[8\], and the engine's model \[32\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_then_requests_until_there_are_all(change, problem):
    given = other_weights()
    engine = Engine(small_model(), None)
    with pytest.raises(InputError, match=problem):
        engine.take_weights(change(dict(given.named_parameters())).items())
    with pytest.raises(HerdError, match="only part of its new weights"):
        engine.generate(PROMPTS, SAMPLED)
    engine.take_weights(given.named_parameters())
    assert engine.generate(PROMPTS, SAMPLED) == Engine(given, None).generate(PROMPTS, SAMPLED)


def test_a_busy_engine_and_a_quantized_one_take_no_weights(tmp_path):
    engine = Engine(small_model(), None)
    engine.submit([1, 2], SAMPLED)
    with pytest.raises(HerdError, match="running"):
        engine.take_weights(small_model().named_parameters())
    save_folder(small_model(layers=3), tmp_path / "whole")
    quantize_folder(tmp_path / "whole", tmp_path / "fp8", Fp8Config())
    quantized = Engine(load_fp8(tmp_path / "fp8", torch.device("cpu"), torch.float32), None)
    with pytest.raises(InputError, match="quantized"):
        quantized.take_weights(small_model().named_parameters())


def test_a_sample_names_the_stop_token_that_ended_it():
    engine = Engine(small_model(), None)
    free = engine.generate([[1, 2, 3]], SamplingParams(max_tokens=6, temperature=0))[0][0]
    stops = (free.tokens[3], 399)
    ended = engine.generate([[1, 2, 3]], SamplingParams(max_tokens=6, temperature=0, stop_tokens=stops))[0][0]
    first = free.tokens.index(stops[0])
    assert free.stop_token is None
    assert ended.stop_token == stops[0]
    assert [*ended.tokens, ended.stop_token] == free.tokens[: first + 1]
