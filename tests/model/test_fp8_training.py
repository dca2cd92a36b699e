"""FP8 linear layers against the same arithmetic in float32 and against plain layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from herdlm.model.fp8 import FP8_MAX
from herdlm.model.fp8_training import Fp8TrainingLinear, apply_fp8, quantize_rows, rowwise_product


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def test_rows_are_scaled_to_the_type_s_range() -> None:
    x = random(5, 32) * torch.tensor([1e-3, 1, 100, 0, 3e4])[:, None].bfloat16()
    values, scale = quantize_rows(x)
    assert values.dtype == torch.float8_e4m3fn and values.float()[[0, 1, 2, 4]].abs().amax(1).tolist() == [FP8_MAX] * 4
    assert not values[3].float().any()
    error = (values.float() * scale - x.float()).abs()
    assert bool((error <= x.float().abs() / 16 + scale * 2**-10).all())  # 3 bits of mantissa, then subnormals


def test_a_product_is_that_of_the_quantized_rows() -> None:
    a, b = random(16, 48), random(32, 48, seed=1)
    (left, left_scale), (right, right_scale) = quantize_rows(a), quantize_rows(b)
    expected = (left.float() * left_scale) @ (right.float() * right_scale).T
    torch.testing.assert_close(rowwise_product(a, b).float(), expected, rtol=2**-7, atol=1e-3)
    assert (rowwise_product(a, b).float() - a.float() @ b.float().T).norm() < 0.06 * (a.float() @ b.float().T).norm()


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_near_those_of_a_plain_layer(bias: bool) -> None:
    plain = nn.Linear(48, 32, bias=bias)
    with torch.no_grad():
        plain.weight.copy_(random(32, 48, seed=2))
    layer = nn.ModuleDict({"a": nn.Linear(48, 32, bias=bias), "b": nn.Linear(40, 32, bias=bias)})
    assert apply_fp8(layer) == 1 and type(layer["a"]) is Fp8TrainingLinear and type(layer["b"]) is nn.Linear
    layer["a"].load_state_dict(plain.state_dict())
    x = random(2, 8, 48, seed=3).float()
    results = []
    for module in (plain, layer["a"]):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = module(leaf)
        assert out.dtype == torch.bfloat16 and out.shape == (2, 8, 32)
        (out.float() * random(2, 8, 32, seed=4)).sum().backward()
        results.append([out.float(), leaf.grad, module.weight.grad])
    for number, (expected, mine) in enumerate(zip(*results, strict=True)):
        error = (mine - expected).norm() / expected.norm()
        assert error < 0.06, number
        assert error > 0.01 or number == 2  # the weight's gradient alone is not quantized
    assert torch.equal(results[0][2], results[1][2])
    if bias:
        assert layer["a"].bias.grad is not None and bool(layer["a"].bias.grad.any())
        torch.testing.assert_close(layer["a"].bias.grad, plain.bias.grad, rtol=2**-6, atol=2**-6)


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_what_needs_no_gradient_gets_none(frozen: str) -> None:
    layer = nn.Sequential(nn.Linear(32, 16, bias=False))
    apply_fp8(layer)
    x = random(4, 32).requires_grad_(frozen != "x")
    layer[0].weight.requires_grad_(frozen != "weight")
    layer(x).float().sum().backward()
    assert (x.grad is None) == (frozen == "x") and (layer[0].weight.grad is None) == (frozen == "weight")
