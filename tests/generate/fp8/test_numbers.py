"""FP8's numbers against an oracle that knows e4m3 from its definition and reckons in float64, one number at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from herdlm.generate.fp8.config import Granularity
from herdlm.generate.fp8.linear import Fp8Linear, quantize_activation
from herdlm.model.fp8 import CONVERTED_BY_TORCH, exact_floats
from tests.generate.fp8.weights import has_scaled_product, quantized

LARGEST = 448.0


def e4m3(bits: int) -> float:
    """The number that eight bits mean: sign, four bits of exponent with bias 7, three of mantissa; no infinities."""
    sign, exponent, mantissa = -1.0 if bits & 0x80 else 1.0, bits >> 3 & 15, bits & 7
    if exponent == 15 and mantissa == 7:
        return math.nan
    if exponent == 0:
        return sign * mantissa * 2.0**-9
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


NUMBERS = sorted((e4m3(bits), bits) for bits in range(128) if not math.isnan(e4m3(bits)))


def nearest(value: float) -> float:
    """The e4m3 number nearest to ``value``, an even mantissa where two are; saturates at 448."""
    magnitude = min(abs(value), LARGEST)
    best, _ = min(NUMBERS, key=lambda entry: (abs(entry[0] - magnitude), entry[1] & 1))
    return math.copysign(best, value)


def oracle(row: list[float], cap: float) -> tuple[list[float], float]:
    """A row's values in FP8 and its scale."""
    largest = min(max(abs(value) for value in row), cap)
    scale = float(np.float32(np.float32(largest) / np.float32(LARGEST)))
    if largest == 0:
        return [0.0] * len(row), scale
    return [nearest(float(np.float32(value) / np.float32(scale))) for value in row], scale


magnitudes = st.floats(-1e4, 1e4, width=32).filter(lambda value: value == 0 or abs(value) > 1e-6)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.lists(magnitudes, min_size=5, max_size=5), min_size=1, max_size=4),
    cap=st.sampled_from([math.inf, 1200.0, 0.5]),
)
def test_activations_are_those_of_the_oracle(rows: list[list[float]], cap: float) -> None:
    values, scale = quantize_activation(torch.tensor(rows), "row", cap)
    for given_row, row, row_scale in zip(rows, values.double().tolist(), scale[:, 0].tolist(), strict=True):
        expected, expected_scale = oracle(given_row, cap)
        assert row == expected
        if expected_scale:
            assert row_scale == expected_scale
        else:
            assert 0 < row_scale < 1e-30  # of a row of zeros: any will do but zero


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.lists(magnitudes, min_size=5, max_size=5), min_size=1, max_size=4))
def test_weights_are_those_of_the_oracle_under_their_scale(rows: list[list[float]]) -> None:
    values, scale = quantized(torch.tensor(rows), "row")
    for given_row, row, row_scale in zip(rows, values.double().tolist(), scale[:, 0].tolist(), strict=True):
        largest = max(map(abs, given_row))
        assert row == [nearest(float(np.float32(value) / np.float32(row_scale))) for value in given_row]
        # the least bfloat16 number that is large enough
        assert row_scale >= largest / LARGEST * (1 - 2**-23) or row_scale == 1.0
        assert torch.tensor(row_scale).bfloat16().item() == row_scale
        assert largest == 0 or row_scale * (1 - 2**-7) < largest / LARGEST


def test_what_lies_beyond_the_cap_saturates() -> None:
    values, scale = quantize_activation(torch.tensor([[1e30, -2400.0, 600.0, 1e-3]]), "row", 1200.0)
    assert values.tolist() == [[448.0, -448.0, 224.0, 0.0]]
    assert scale.item() == pytest.approx(1200 / 448)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("cap", [1200.0, math.inf])
def test_a_token_that_is_not_finite_stays_so_and_hurts_no_other(broken: float, cap: float) -> None:
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    layer = Fp8Linear(32, 16, "row", cap)
    layer.weight, layer.weight_scale = quantized(weight, "row")
    x = torch.ones(3, 32)
    expected = layer(x)
    x[1, 5] = broken
    out = layer(x)
    assert bool(out[1].isnan().all())
    assert torch.equal(out[[0, 2]], expected[[0, 2]])


def test_every_number_survives_the_fast_way_back_to_float32() -> None:
    every = torch.arange(256, dtype=torch.uint8).repeat(64).view(torch.float8_e4m3fn)
    expected = torch.tensor([e4m3(bits) for bits in range(256)]).repeat(64)
    assert every.numel() >= CONVERTED_BY_TORCH
    numbers = ~expected.isnan()
    for values in (exact_floats(every), exact_floats(every[:256]).repeat(64)):  # large, and small
        assert torch.equal(values[numbers], expected[numbers])


def emulated(x: Tensor, layer: Fp8Linear) -> Tensor:
    """What a scaled product of FP8 means, in float64: sums of exact products, both scales, one rounding at the end."""
    values, scale = quantize_activation(x, layer.granularity, layer.cap)
    product = values.double() @ layer.weight.double().t()
    return product * scale.double() * layer.weight_scale.double().t()


@pytest.mark.parametrize("granularity", ["row", "tensor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 5, 300])  # few and many values: two ways to float32
def test_the_portable_product_is_the_scaled_one_to_its_last_bits(
    granularity: Granularity, dtype: torch.dtype, tokens: int
) -> None:
    draw = torch.Generator().manual_seed(3)
    layer = Fp8Linear(256, 48, granularity, 1200.0)
    layer.weight, layer.weight_scale = quantized(torch.randn(48, 256, generator=draw) * 0.05, granularity)
    x = (torch.randn(tokens, 256, generator=draw) * 7).to(dtype)
    out, expected = layer(x), emulated(x, layer)
    size = (layer.weight.double().abs() * layer.weight_scale.double()).sum(1) * x.double().abs().amax()
    if dtype == torch.float32:
        assert float(((out.double() - expected).abs() / size).max()) < 2**-23
    else:  # float32 sums rounded once to bfloat16: at most half a unit off, or two where the sum lies between two
        off = (out.double() - expected).abs()
        assert bool((off <= expected.abs() * 2**-8 * 1.001 + size * 2**-23).all())
    if not has_scaled_product(granularity):
        return  # there is no other to compare with
    torch_out = torch._scaled_mm(
        quantize_activation(x, granularity, 1200.0)[0],
        layer.weight.t(),
        scale_a=quantize_activation(x, granularity, 1200.0)[1],
        scale_b=layer.weight_scale.t(),
        out_dtype=torch.float32,
    )
    assert float(((torch_out.double() - expected).abs() / size).max()) < 2**-22  # torch's own means the same
