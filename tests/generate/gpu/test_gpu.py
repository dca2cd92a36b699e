"""The engine on a GPU: against the CPU, and steps from graphs against steps that are launched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from herdlm.generate import Engine, SamplingParams
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Transformer, build, initialize

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand")]

SIZES: dict[str, dict[str, Any]] = {
    "roomy": {},
    "chunked prefill": {"step_tokens": 40, "max_batch": 24, "page_size": 4},
    "pages run out": {"cache_tokens": 1200, "page_size": 4, "max_batch": 24},
}


def model(device: str, dtype: torch.dtype = torch.float32, size: int = 32) -> Transformer:
    config = ModelConfig(
        vocab_size=970, dim=6 * size, layers=3, heads=6, kv_heads=2, ffn_dim=192, head_dim=size, max_seq_len=512
    )
    built = build(config)
    initialize(built, seed=4, std=0.1)
    return built.to(device, dtype)


def prompts() -> list[list[int]]:
    draw = np.random.default_rng(8)
    system = draw.integers(0, 970, 64).tolist()
    return [system + draw.integers(0, 970, n).tolist() for n in (3, 140, 17, 60, 1, 33, 5)]


@pytest.mark.parametrize("size", [16, 64, 128])
@pytest.mark.parametrize("sizes", SIZES)
def test_a_gpu_says_what_a_cpu_says(sizes, size):
    asked = SamplingParams(max_tokens=32, n=3, temperature=1.1, top_p=0.95)
    engine = Engine(model("cuda", size=size), None, **({"cache_tokens": 8192} | SIZES[sizes]))
    assert engine._graphs is not None
    got = engine.generate(prompts(), asked)
    expected = Engine(model("cpu", size=size), None, **({"cache_tokens": 8192} | SIZES[sizes])).generate(
        prompts(), asked
    )
    for ours, theirs in zip(got, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.tokens == b.tokens
            assert np.abs(np.array(a.logprobs) - np.array(b.logprobs)).max() < 2e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 4, 8, 24])  # sizes that are recorded: no padding, so the same products
def test_steps_from_graphs_are_those_launched_one_by_one(count, dtype):
    whole, asked = model("cuda", dtype), SamplingParams(max_tokens=24, temperature=0.0)
    given = (prompts() * 4)[:count]
    sizes = {"cache_tokens": 2**15, "max_batch": 24}
    recorded = Engine(whole, None, **sizes).generate(given, asked)
    launched = Engine(whole, None, cuda_graphs=False, **sizes).generate(given, asked)
    assert recorded == launched
