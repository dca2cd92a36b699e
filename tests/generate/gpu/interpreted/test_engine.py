"""The engine as it runs on a GPU, its kernels interpreted and its graphs called, against the ordinary engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from herdlm.generate import Completion, Engine, SamplingParams
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.folder import quantize_folder
from herdlm.generate.fp8.load import load_fp8
from herdlm.generate.gpu.attention import runs_kernels
from herdlm.generate.gpu.fp8_feed_forward import Fp8FeedForward
from herdlm.generate.gpu.layer import KernelLayer
from herdlm.model.config import ModelConfig, RopeScaling
from herdlm.model.hf import save_folder
from herdlm.model.transformer import Transformer, build, initialize

CONFIG = ModelConfig(vocab_size=97, dim=64, layers=2, heads=4, kv_heads=1, ffn_dim=48, max_seq_len=128)
YARN = RopeScaling(rope_type="yarn", original_max_position_embeddings=16)
SIZES: dict[str, dict[str, Any]] = {
    "roomy": {},
    "chunked prefill": {"step_tokens": 9, "max_batch": 5, "page_size": 4},
    "pages run out": {"cache_tokens": 100, "page_size": 4, "max_batch": 6},
}


def model(**changes: Any) -> Transformer:
    built = build(CONFIG.model_copy(update=changes))
    initialize(built, seed=4, std=0.15)
    for name, parameter in built.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(2))
    return built


def prompts() -> list[list[int]]:
    draw = np.random.default_rng(8)
    system = draw.integers(0, 97, 20).tolist()
    return [system + draw.integers(0, 97, n).tolist() for n in (3, 14, 1)]


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    """Makes an engine without kernels."""

    def make(*arguments: Any, **sizes: Any) -> Engine:
        with monkeypatch.context() as changed:
            changed.delenv("TRITON_INTERPRET")
            runs_kernels.cache_clear()
            engine = Engine(*arguments, **sizes)
        generate = engine.generate

        def without(*given: Any) -> list[list[Completion]]:
            with monkeypatch.context() as changed:
                changed.delenv("TRITON_INTERPRET")
                runs_kernels.cache_clear()
                found = generate(*given)
            runs_kernels.cache_clear()
            return found

        engine.generate = without  # type: ignore[method-assign,assignment]
        runs_kernels.cache_clear()
        assert engine._graphs is None and type(engine.model.model.layers[0]) is not KernelLayer
        return engine

    return make


def assert_same(got: list[list[Completion]], expected: list[list[Completion]]) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.tokens == b.tokens and a.finish_reason == b.finish_reason
            assert np.abs(np.array(a.logprobs) - np.array(b.logprobs)).max() < 1e-5


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"n": 3, "top_p": 0.95, "temperature": 1.1, "seed": 7}])
def test_the_same_tokens_and_log_probabilities_come_out(sizes, params, plainly):
    whole = model()
    engine = Engine(whole, None, **SIZES[sizes])
    assert engine._graphs is not None and type(engine.model.model.layers[0]) is KernelLayer
    asked = SamplingParams(max_tokens=8, **params)
    got = engine.generate(prompts(), asked)
    other = plainly(whole, None, **SIZES[sizes])
    assert_same(got, other.generate(prompts(), asked))
    assert engine.scheduler.reused_tokens == other.scheduler.reused_tokens > 0
    assert engine.scheduler.preemptions == other.scheduler.preemptions
    assert engine._graphs.steps
    if sizes == "pages run out" and "n" in params:
        assert engine.scheduler.preemptions
    engine.scheduler.pool.check()


@pytest.mark.parametrize(
    "changes", [{"family": "qwen2"}, {"attention_bias": True, "mlp_bias": True, "rope_scaling": YARN}], ids=str
)
def test_biases_and_the_length_of_rotations_count(changes, plainly):
    whole, asked = model(**changes), SamplingParams(max_tokens=8, temperature=0)
    engine = Engine(whole, None)
    assert type(engine.model.model.layers[0]) is KernelLayer
    assert_same(engine.generate(prompts(), asked), plainly(whole, None).generate(prompts(), asked))


def test_steps_from_graphs_are_the_steps_without(plainly):
    whole, asked = model(), SamplingParams(max_tokens=8, n=3)
    recorded, launched = Engine(whole, None), Engine(whole, None, cuda_graphs=False)
    assert launched._graphs is None
    # Three rows stand in a batch of four: the fourth is padding.
    got, expected = recorded.generate(prompts()[:1], asked), launched.generate(prompts()[:1], asked)
    assert recorded._graphs is not None and list(recorded._graphs.steps) == [4]
    assert_same(got, expected)


def test_what_is_asked_beside_tokens_is_the_same(plainly):
    whole = model()
    asked = SamplingParams(max_tokens=6, temperature=0.0, top_logprobs=3, prompt_logprobs=True, repetition_penalty=1.3)
    got = Engine(whole, None).generate(prompts(), asked)
    expected = plainly(whole, None).generate(prompts(), asked)
    assert_same(got, expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert np.allclose(ours[0].prompt_logprobs, theirs[0].prompt_logprobs, atol=1e-5)
        assert [[token for token, _ in top] for top in ours[0].top_logprobs] == [
            [token for token, _ in top] for top in theirs[0].top_logprobs
        ]


def test_new_weights_are_recorded_anew(plainly):
    whole, asked = model(), SamplingParams(max_tokens=5, temperature=0.0)
    engine = Engine(whole, None)
    engine.generate(prompts(), asked)
    initialize(whole, seed=9, std=0.15)
    engine.forget_prefixes()
    assert_same(engine.generate(prompts(), asked), plainly(whole, None).generate(prompts(), asked))


def test_weights_from_memory_are_recorded_anew(plainly):
    whole, asked = model(), SamplingParams(max_tokens=5, temperature=0.0)
    engine = Engine(whole, None)
    engine.generate(prompts(), asked)
    given = model()
    initialize(given, seed=9, std=0.15)
    engine.take_weights(given.named_parameters())
    assert type(engine.model.model.layers[0]) is KernelLayer
    assert_same(engine.generate(prompts(), asked), plainly(given, None).generate(prompts(), asked))


def test_heads_that_the_kernels_do_not_take_are_attended_to_plainly():
    engine = Engine(model(dim=96, heads=4), None)  # 24 channels each
    assert engine._graphs is None and type(engine.model.model.layers[0]) is not KernelLayer
    assert len(engine.generate([[1, 2, 3]], SamplingParams(max_tokens=3))[0][0].tokens) == 3


def test_a_step_that_cannot_be_recorded_fails_aloud():
    engine = Engine(model(), None)
    assert engine._graphs is not None

    def refuse(work: Any) -> Any:
        raise RuntimeError("no room to record")

    engine._graphs.record = refuse
    with pytest.raises(RuntimeError, match="no room to record"):
        engine.generate([[1, 2, 3]], SamplingParams(max_tokens=3))
    assert not engine.busy


def test_an_fp8_folder_runs_through_the_joined_feed_forward(tmp_path, plainly, scaled_mm):
    save_folder(model(layers=3).to(torch.bfloat16), tmp_path / "whole")
    quantize_folder(tmp_path / "whole", tmp_path / "fp8", Fp8Config(attention=True))
    asked = SamplingParams(max_tokens=1, temperature=0.0, top_logprobs=97)
    engine = Engine(load_fp8(tmp_path / "fp8"), None)
    assert isinstance(engine.model.model.layers[1].mlp, Fp8FeedForward)

    def logprobs(engine: Engine) -> np.ndarray:
        return np.array(
            [[value for _, value in sorted(c[0].top_logprobs[0])] for c in engine.generate(prompts(), asked)]
        )

    ours = logprobs(engine)
    plain, exact = (
        logprobs(plainly(load_fp8(tmp_path / "fp8", "cpu", dtype), None)) for dtype in (torch.bfloat16, torch.float32)
    )
    assert np.abs(ours - exact).mean() < 1.3 * np.abs(plain - exact).mean()
    assert np.abs(ours - exact).mean() < 0.1 * exact.std()
