"""The fused form of the Transformer against the one that trains, and the log-probabilities of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from herdlm.base.errors import HerdError
from herdlm.generate import Engine, SamplingParams
from herdlm.generate.cpu.fused import FusedTransformer
from herdlm.generate.cpu.joined import BiasedMatrix
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.folder import quantize_folder
from herdlm.generate.fp8.load import load_fp8
from herdlm.generate.matrix import HalfMatrix, packs
from herdlm.model.attention import DocumentAttention
from herdlm.model.config import ModelConfig, RopeScaling
from herdlm.model.hf import save_folder
from herdlm.model.transformer import Transformer, build, initialize
from herdlm.tokens.batch import Piece, assemble
from herdlm.train.objectives import NextToken

pytestmark = pytest.mark.usefixtures("forms")

CONFIG = ModelConfig(
    vocab_size=97,
    dim=32,
    layers=3,
    heads=4,
    kv_heads=2,
    ffn_dim=48,
    max_seq_len=256,
    rope_scaling=RopeScaling(original_max_position_embeddings=64),
)


BIASED = {
    "attention_bias": True,
    "mlp_bias": True,
    "rope_scaling": RopeScaling(rope_type="yarn", factor=4, original_max_position_embeddings=16),
}


def model(stored: str, config: ModelConfig = CONFIG) -> Transformer:
    """Weights that are float32 in full, or bfloat16's values kept as ``stored`` says."""
    built = build(config)
    initialize(built, seed=4, std=0.15)
    for parameter in built.parameters():
        if parameter.ndim == 1:
            with torch.no_grad():
                parameter.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))
    if stored != "float32":
        built = built.to(torch.bfloat16)
    return built.float() if stored == "bfloat16 as float32" else built


STORED = ["float32", "bfloat16 as float32", "bfloat16"]


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("changes", [{}, {"tied_embeddings": True}, BIASED, {"family": "qwen2"}], ids=str)
def test_hidden_states_and_logits_are_the_models(stored, changes):
    whole = model(stored, CONFIG.model_copy(update=changes))
    fused = FusedTransformer(whole, torch.float32)
    if stored != "float32" and packs():
        qkv = fused.model.layers[0].qkv
        assert isinstance(qkv.plain if isinstance(qkv, BiasedMatrix) else qkv, HalfMatrix)
    tokens = torch.randint(0, 97, (1, 90), generator=torch.Generator().manual_seed(1))
    documents = torch.arange(90)[None] // 40
    positions = torch.arange(90)[None] % 40
    with torch.no_grad():
        hidden = fused(tokens, positions, DocumentAttention(documents))
        exact = whole.float()
        expected = exact(tokens, positions, DocumentAttention(documents))
        assert (hidden - expected).abs().max() < 2e-5
        assert (fused.logits(hidden[0]) - exact.logits(expected[0])).abs().max() < 2e-5


def test_a_model_that_is_let_go_keeps_no_second_copy():
    whole = model("float32")
    fused = FusedTransformer(whole, torch.float32, free_original=True)
    assert {name for name, _ in whole.named_parameters()} <= {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
    }
    assert fused.model.embed_tokens is whole.model.embed_tokens


@pytest.mark.parametrize("changes", [{}, BIASED], ids=["plain", "biased"])
@pytest.mark.parametrize("attention", [False, True])
def test_fp8_matrices_stay_what_they_are(changes, attention, tmp_path):
    unquantized = model("bfloat16", CONFIG.model_copy(update=changes))
    save_folder(unquantized, tmp_path / "whole")
    quantize_folder(tmp_path / "whole", tmp_path / "fp8", Fp8Config(attention=attention))
    whole = load_fp8(tmp_path / "fp8", "cpu", torch.float32)
    for name, value in unquantized.state_dict().items():
        if name.endswith(".bias"):
            assert torch.equal(whole.state_dict()[name], value.float()), name
    fused = FusedTransformer(whole, torch.float32)
    assert fused.model.layers[1].mlp.down is whole.model.layers[1].mlp.down_proj
    tokens, positions = torch.arange(40)[None], torch.arange(40)[None]
    with torch.no_grad():
        hidden = fused(tokens, positions, DocumentAttention(torch.zeros_like(tokens)))
        expected = whole(tokens, positions, DocumentAttention(torch.zeros_like(tokens)))
    # A rounding to FP8 may fall to the other side for a difference in the last bit of float32.
    assert (hidden - expected).abs().median() < 1e-6
    assert (hidden - expected).abs().max() < 0.1


def trainers_logprobs(whole: Transformer, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Minus the training loss of each answer token, by the objective that the training loop calls."""
    text, found = np.array([*prompt, *answer]), []
    for target in range(len(prompt) - 1, len(text) - 1):
        weights = np.zeros(len(text) - 1, np.float32)
        weights[target] = 1
        with torch.no_grad():
            loss, _ = NextToken().loss(whole, assemble([[Piece(text, weights)]], len(text) - 1, 0))
        found.append(-loss)
    return torch.stack(found)


SIZES: dict[str, dict[str, Any]] = {
    "roomy": {},
    "chunked prefill": {"step_tokens": 8, "max_batch": 4, "page_size": 4},
    "pages run out": {"cache_tokens": 160, "page_size": 4, "max_batch": 6},
}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("stored", STORED[:2])
def test_log_probabilities_of_a_sampled_text_are_the_training_objectives(stored, sizes):
    whole = model(stored)
    rng = np.random.default_rng(8)
    system = rng.integers(0, 97, 40).tolist()
    prompts = [system + rng.integers(0, 97, n).tolist() for n in (3, 30, 17)]
    engine = Engine(whole, None, **SIZES[sizes])
    answers = engine.generate(prompts, SamplingParams(max_tokens=24, n=3, top_p=0.95, temperature=1.2))
    if sizes == "pages run out":
        assert engine.scheduler.preemptions
    assert engine.scheduler.reused_tokens
    for prompt, completions in zip(prompts, answers, strict=True):
        for completion in completions:
            expected = trainers_logprobs(whole, prompt, completion.tokens)
            assert (torch.tensor(completion.logprobs) - expected).abs().max() < 1e-5


def test_new_weights_are_taken_over_where_the_engine_is_told():
    whole = model("float32")
    engine, params = Engine(whole, None), SamplingParams(max_tokens=6, temperature=0)
    before = engine.generate([[1, 2, 3]], params)[0][0]
    initialize(whole, seed=9, std=0.15)
    engine.forget_prefixes()
    after = engine.generate([[1, 2, 3]], params)[0][0]
    assert after.logprobs != before.logprobs
    assert after == Engine(whole, None).generate([[1, 2, 3]], params)[0][0]


def test_an_engine_that_let_its_model_go_takes_no_new_weights():
    engine = Engine(model("float32"), None, keep_model=False)
    expected = engine.generate([[1, 2]], SamplingParams(max_tokens=3))
    engine.submit([1, 2], SamplingParams(max_tokens=3))
    with pytest.raises(HerdError, match="running"):
        engine.forget_prefixes()
    while engine.busy:
        engine.step()
    engine.forget_prefixes()
    assert engine.generate([[1, 2]], SamplingParams(max_tokens=3)) == expected
