"""What each process of :mod:`tests.generate.test_parallel` runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from herdlm.generate import Engine, SamplingParams
from herdlm.generate.parallel import Part, follow
from herdlm.model.config import ModelConfig, RopeScaling
from herdlm.model.transformer import Transformer, build, initialise
from herdlm.parallel.config import Sizes
from herdlm.parallel.mesh import make_mesh

CONFIG = ModelConfig(
    vocab_size=97, dim=32, layers=3, heads=8, kv_heads=4, ffn_dim=48, max_seq_len=256,
    rope_scaling=RopeScaling(original_max_position_embeddings=64),
)  # fmt: skip


def model(halves: bool) -> Transformer:
    built = build(CONFIG)
    initialise(built, seed=4, std=0.15)
    return built.to(torch.bfloat16).float() if halves else built


def answers(engine: Engine) -> list[Any]:
    """Prompts that share a beginning, are computed in chunks and put back; n samples, options that read logits."""
    rng = np.random.default_rng(8)
    system = rng.integers(0, 97, 40).tolist()
    prompts = [system + rng.integers(0, 97, n).tolist() for n in (3, 30, 17, 1)]
    params = [SamplingParams(max_tokens=20, n=3, seed=s, top_p=0.95, prompt_logprobs=s == 1) for s in range(4)]
    found = engine.generate(prompts, params)
    assert engine.scheduler.preemptions
    assert engine.scheduler.reused_tokens
    return [
        [completion.tokens, completion.logprobs, completion.prompt_logprobs] for each in found for completion in each
    ]


SIZES: dict[str, Any] = {"cache_tokens": 200, "page_size": 4, "max_batch": 7, "step_tokens": 24}


def generate(tp: int, pp: int, halves: bool) -> list[Any]:
    """On every rank; the first one's answers."""
    mesh = make_mesh(Sizes(tp=tp, cp=1, pp=pp, dp_replicate=1, dp_shard=1), torch.device("cpu"))
    if dist.get_rank():
        follow(Part(model(halves), torch.float32, mesh))
        return []
    engine = Engine(model(halves), None, mesh=mesh, **SIZES)
    found = answers(engine)
    engine.close()
    return found
