"""Compiled layers: one form for every batch, equal to the plain layers."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from herdlm.model.attention import DocumentAttention
from herdlm.model.config import ModelConfig
from herdlm.model.transformer import Transformer, build, initialize
from herdlm.parallel.blocks import apply_compile

CONFIG = ModelConfig(
    vocab_size=61, dim=32, layers=10, heads=4, kv_heads=2, ffn_dim=48
)  # more layers than dynamo's limit


def gradients(model: Transformer, lengths: tuple[int, ...], *, autocast: bool) -> list[Tensor]:
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).view(2, -1)
    tokens = torch.randint(0, 61, documents.shape, generator=torch.Generator().manual_seed(len(lengths)))
    positions = torch.arange(documents.shape[1]).expand_as(documents)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        hidden = model(tokens, positions, DocumentAttention(documents))
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0))
    (hidden * weights).sum().backward()
    return [hidden.detach(), *(p.grad for p in model.model.layers.parameters() if p.grad is not None)]


@pytest.mark.slow
@pytest.mark.parametrize(("autocast", "tolerance"), [(False, 1e-5), (True, 0.03)])
def test_compiled_layers_equal_plain_ones_and_compile_for_no_batch_but_the_first_two(
    autocast: bool, tolerance: float
) -> None:
    torch._dynamo.reset()
    plain, compiled = build(CONFIG), build(CONFIG)
    for model in (plain, compiled):
        initialize(model, 1, std=0.1)
    for layer in compiled.model.layers:
        apply_compile(layer)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # a layer that falls back says so by one
        for number, lengths in enumerate([(9, 7, 16), (1, 15, 3, 13), (16, 2, 2, 12), (5, 5, 6, 8, 8), (16, 16)]):
            if number == 2:
                torch._dynamo.config.error_on_recompile = True
            try:
                mine = gradients(compiled, lengths, autocast=autocast)
            finally:
                torch._dynamo.config.error_on_recompile = False
            theirs = gradients(plain, lengths, autocast=autocast)
            assert len(mine) == len(theirs) == 1 + 10 * 9
            for one, other in zip(mine, theirs, strict=True):
                assert (one - other).norm() <= tolerance * other.norm()
