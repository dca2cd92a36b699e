"""Packed matrices against plain float32 products of the same weights."""

from __future__ import annotations

import pytest
import torch

from herdlm.generate.matrix import HalfMatrix, WholeMatrix, matrix, packs

needs_packing = pytest.mark.skipif(not packs(), reason="this torch has no packed 16-bit matrices")


@needs_packing
@pytest.mark.parametrize("spread", [1e-30, 1e-3, 1.0, 1e30])
@pytest.mark.parametrize("rows", [1, 5, 70])
def test_bfloat16_weights_of_any_size_are_packed_and_give_float32s_products(spread, rows):
    generator = torch.Generator().manual_seed(3)
    weight = (torch.randn(37, 50, generator=generator) * spread).bfloat16()
    weight[3] = 0
    x = torch.randn(rows, 50, generator=generator)
    packed = matrix(weight, torch.float32)
    assert isinstance(packed, HalfMatrix)
    expected = x.double() @ weight.double().t()
    scale = (x.double().abs() @ weight.double().abs().t()).clamp(min=1e-45)
    assert (((packed(x).double() * packed.scale) - expected).abs() / scale).max() < 50 * 2**-24


@needs_packing
def test_weights_that_sixteen_bits_do_not_hold_are_left_whole():
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    x = torch.randn(2, 8)
    assert isinstance(matrix(weight, torch.float32), WholeMatrix)
    assert torch.allclose(matrix(weight, torch.float32)(x), x @ weight.t(), atol=1e-6)
    weight = weight.bfloat16().float()
    assert isinstance(matrix(weight, torch.float32), HalfMatrix)
    weight[0, 0] = 3 * 2.0**-40  # lost beside weights of 1: below float32's own rounding of a product
    assert isinstance(matrix(weight, torch.float32), HalfMatrix)
    weight[0, 0] = torch.nan
    assert isinstance(matrix(weight, torch.float32), WholeMatrix)


@pytest.mark.parametrize("compute", [torch.bfloat16, torch.float64])
def test_other_types_are_computed_in_as_they_are(compute):
    weight, x = torch.randn(6, 4).bfloat16(), torch.randn(3, 4, dtype=compute)
    out = matrix(weight, compute)
    assert isinstance(out, WholeMatrix)
    assert torch.allclose(out(x), x @ weight.to(compute).t(), rtol=2e-2 if compute == torch.bfloat16 else 1e-12)


def test_a_matrix_of_zeros():
    assert torch.equal(matrix(torch.zeros(3, 4), torch.float32)(torch.ones(2, 4)), torch.zeros(2, 3))
