"""What each process of :mod:`tests.generate.test_parallel` runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from herdlm.generate import Engine, SamplingParams
from herdlm.generate.embedding import embedding
from herdlm.generate.fp8.config import Granularity
from herdlm.generate.fp8.linear import Fp8Linear
from herdlm.generate.load import load_model
from herdlm.generate.parallel import ModelShard, run_worker
from herdlm.model.config import ModelConfig, RopeScaling
from herdlm.model.fp8 import FP8
from herdlm.model.transformer import Transformer, build, initialize
from herdlm.parallel.config import Sizes
from herdlm.parallel.mesh import make_mesh

CONFIG = ModelConfig(
    vocab_size=97,
    dim=32,
    layers=3,
    heads=8,
    kv_heads=4,
    ffn_dim=48,
    max_seq_len=256,
    attention_bias=True,
    mlp_bias=True,
    rope_scaling=RopeScaling(rope_type="yarn", original_max_position_embeddings=64),
)


def model(halves: bool) -> Transformer:
    built = build(CONFIG)
    initialize(built, seed=4, std=0.15)
    draw = torch.Generator().manual_seed(2)
    for name, parameter in built.named_parameters():
        if name.endswith(".bias"):
            nn.init.normal_(parameter, std=0.3, generator=draw)
    return built.to(torch.bfloat16).float() if halves else built


def answers(engine: Engine) -> list[Any]:
    """Prompts that share a beginning, are computed in chunks and put back; n samples, options that read logits."""
    rng = np.random.default_rng(8)
    system = rng.integers(0, 97, 40).tolist()
    prompts = [system + rng.integers(0, 97, n).tolist() for n in (3, 30, 17, 1)]
    params = [SamplingParams(max_tokens=10, n=3, seed=s, top_p=0.95, prompt_logprobs=s == 1) for s in range(4)]
    found = engine.generate(prompts, params)
    assert engine.scheduler.preemptions
    assert engine.scheduler.reused_tokens
    return [
        [completion.tokens, completion.logprobs, completion.prompt_logprobs] for each in found for completion in each
    ]


SIZES: dict[str, Any] = {"cache_tokens": 100, "page_size": 4, "max_batch": 7, "step_tokens": 24}


def generate(tp: int, pp: int, halves: bool) -> list[Any]:
    """On every rank; the first one's answers."""
    return _answers_of(model(halves), tp, pp)


def generate_fp8(tp: int, pp: int, folder: str) -> list[Any]:
    """As :func:`generate`, with the FP8 model in ``folder``, in float64."""
    return _answers_of(load_model(Path(folder), "cpu", torch.float64), tp, pp)


def _answers_of(model: Transformer, tp: int, pp: int) -> list[Any]:
    mesh = make_mesh(Sizes(tp=tp, cp=1, pp=pp, dp_replicate=1, dp_shard=1), torch.device("cpu"))
    if dist.get_rank():
        run_worker(ModelShard(model, model.model.embed_tokens.weight.dtype, mesh, free_original=True))
        return []
    engine = Engine(model, None, mesh=mesh, keep_model=False, **SIZES)
    found = answers(engine)
    engine.close()
    return found


DOCUMENTS = ([1, 2, 3], [5] * 40, list(range(96)))


def embed(tp: int, pp: int) -> list[list[float]]:
    """On every rank; the first one's embeddings of documents before and after it generates."""
    mesh = make_mesh(Sizes(tp=tp, cp=1, pp=pp, dp_replicate=1, dp_shard=1), torch.device("cpu"))
    if dist.get_rank():
        run_worker(ModelShard(model(halves=False), torch.float32, mesh))
        return []
    engine = Engine(model(halves=False), None, mesh=mesh, **SIZES)
    first = embedding(engine.model, DOCUMENTS[0])
    engine.generate([DOCUMENTS[0]], SamplingParams(max_tokens=2))
    rest = [embedding(engine.model, tokens) for tokens in DOCUMENTS[1:]]
    engine.close()
    return [first, *rest]


def outlying(inputs: int) -> torch.Tensor:
    """Rows [6, inputs] whose largest value lies in another rank's part each; one of zeros, one with NaN, one beyond
    the cap of 1,200."""
    x = torch.randn(6, inputs, generator=torch.Generator().manual_seed(5))
    x[0, 1] = 900.0
    x[1, -2] = -70.0
    x[2] = 0.0
    x[3, inputs // 2] = torch.nan
    x[4, -1] = 5000.0
    return x


def multiply_fp8(granularity: Granularity) -> list[Any]:
    """On every rank; sums of what the ranks make of their columns, and the first rank's rows."""
    group, rank, ranks = dist.group.WORLD, dist.get_rank(), dist.get_world_size()
    assert group is not None
    whole, x = fp8_linear(granularity), outlying(96)
    if granularity == "tensor":
        x = x[:3]  # of NaN in a tensor with one scale nothing is left
    part = whole.shard(1, ranks, rank, group)
    by_columns = part.product(x.chunk(ranks, dim=1)[rank])
    dist.all_reduce(by_columns)
    by_columns += part.bias
    return [by_columns.tolist(), whole.shard(0, ranks, rank, group)(x).tolist()]


def fp8_linear(granularity: Granularity) -> Fp8Linear:
    """A linear map [96 -> 40] with random values and scales."""
    draw = torch.Generator().manual_seed(6)
    layer = Fp8Linear(96, 40, granularity, 1200.0, bias=True)
    layer.bias = torch.randn(40, generator=torch.Generator().manual_seed(7))
    layer.weight = (torch.randn(40, 96, generator=draw) * 100).clamp(-448, 448).to(FP8)
    layer.weight_scale = torch.rand(layer.weight_scale.shape, generator=draw) / 448
    return layer
