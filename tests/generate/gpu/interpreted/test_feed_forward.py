"""SwiGLU and FP8 by the kernels against the operations of torch that they stand for, to the bit where exact."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from herdlm.generate.cpu.fused import UnfusedFeedForward
from herdlm.generate.fp8.linear import Fp8Linear, quantize_activation
from herdlm.generate.gpu import launches as gpu_launches
from herdlm.generate.gpu.fp8_feed_forward import Fp8FeedForward, fp8_feed_forward
from herdlm.model.config import ModelConfig
from herdlm.model.fp8 import quantize, weight_scale
from herdlm.model.transformer import FeedForward


def drawn(rows: int, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return (torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * 3).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [48, 1376])
def test_swiglu_rounds_where_torch_rounds(size, dtype):
    both = drawn(3, 2 * size, dtype)
    gate, up = both.chunk(2, dim=-1)
    expected = F.silu(gate).mul_(up)
    got = gpu_launches.swiglu(both)
    if dtype == torch.float32:
        assert (got - expected).abs().max() < 4e-6
    else:  # a silu that lies between two numbers may be rounded to either
        assert float((got != expected).float().mean()) < 0.01
        assert ((got - expected).abs() <= expected.abs() * 2**-7).all()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.floats(-2e4, 2e4, width=32), min_size=1, max_size=33),
    cap=st.sampled_from([math.inf, 1200.0, 0.5]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_row_becomes_the_fp8_that_plain_torch_makes_of_it(values, cap, dtype):
    x = torch.tensor([values, values[::-1]]).to(dtype)
    got, scale = gpu_launches.quantize_rows(x, cap)
    expected, expected_scale = quantize_activation(x, "row", cap)
    assert torch.equal(scale, expected_scale)
    assert torch.equal(got.view(torch.uint8), expected.view(torch.uint8))


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("joined", [False, True])
def test_a_row_that_is_not_finite_gets_a_scale_of_nan(broken, joined):
    x = drawn(3, 96, torch.bfloat16)
    x[1, 70] = broken
    values, scale = gpu_launches.quantize_rows(x, 1200.0, joined=joined)
    plain = gpu_launches.swiglu(x) if joined else x
    expected, expected_scale = quantize_activation(plain, "row", 1200.0)
    assert bool(scale[1].isnan()) and bool(expected_scale[1].isnan())
    assert torch.equal(scale[[0, 2]], expected_scale[[0, 2]])
    assert torch.equal(values.float()[[0, 2]], expected.float()[[0, 2]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swiglu_and_its_fp8_in_one_pass_are_the_two_after_one_another(dtype):
    both = drawn(4, 2 * 176, dtype)
    values, scale = gpu_launches.quantize_rows(both, 5.0, joined=True)
    expected, expected_scale = gpu_launches.quantize_rows(gpu_launches.swiglu(both), 5.0)
    assert torch.equal(scale, expected_scale) and torch.equal(values.float(), expected.float())


def mixed(
    granularity: str = "row", ffn: int = 64, caps: tuple[float, float, float] = (2.0, 2.0, 3.0), bias: bool = False
):
    with torch.device("meta"):
        whole = FeedForward(ModelConfig(vocab_size=8, dim=32, layers=1, heads=2, kv_heads=1, ffn_dim=ffn))
    for name, cap, seed in zip(("gate_proj", "up_proj", "down_proj"), caps, range(3), strict=True):
        linear = getattr(whole, name)
        new = Fp8Linear(linear.in_features, linear.out_features, granularity, cap, bias=bias)
        if bias:
            new.bias = drawn(linear.out_features, 1, torch.bfloat16, seed + 7)[:, 0]
        weight = drawn(linear.out_features, linear.in_features, torch.float32, seed) * 0.1
        largest = weight.abs().amax(-1, keepdim=True) if granularity == "row" else weight.abs().amax().reshape(1)
        new.weight_scale = weight_scale(largest)
        new.weight = quantize(weight, new.weight_scale)
        setattr(whole, name, new)
    return UnfusedFeedForward(whole, torch.bfloat16)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 5])
def test_the_joined_feed_forward_says_what_three_fp8_matrices_say(rows, bias, scaled_mm):
    plain = mixed(bias=bias)
    fast = fp8_feed_forward(plain, torch.bfloat16)
    assert isinstance(fast, Fp8FeedForward)
    x = drawn(rows, 32, torch.bfloat16)
    expected, got = plain(x).float(), fast(x).float()
    # Sums in another order may round gate or up to their neighbor, and that to another FP8: 1/16 of one of 64 terms.
    assert ((got - expected).norm() / expected.norm()) < 0.02
    assert got.shape == expected.shape


def test_the_joined_feed_forward_keeps_nothing_of_gate_and_up():
    plain = mixed()
    fast = fp8_feed_forward(plain, torch.bfloat16)
    kept = {tensor.data_ptr() for tensor in (fast.gate_up, fast.down)}
    assert plain.gate.weight.data_ptr() not in kept and plain.up.weight.data_ptr() not in kept
    assert plain.down.weight.data_ptr() in kept
    assert not list(fast.children())


@pytest.mark.parametrize(
    ("given", "compute"),
    [
        ({"granularity": "tensor"}, torch.bfloat16),
        ({"ffn": 72}, torch.bfloat16),
        ({}, torch.float32),
        ({"caps": (2.0, 3.0, 3.0)}, torch.bfloat16),
    ],
)
def test_what_does_not_fit_stays_what_it_is(given, compute):
    plain = mixed(**given)
    assert fp8_feed_forward(plain, compute) is plain
