"""The model's own norm and rotation against torch's operations, in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from herdlm.model.transformer import RMSNorm, _rotated, rotate


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("shape", [(2, 5, 16), (7, 16)])
def test_norm_equals_torchs(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    norm = RMSNorm(16, eps=1e-3, dtype=dtype)
    with torch.no_grad():
        norm.weight.copy_(random(16))
    results = []
    for function in (norm, lambda x: F.rms_norm(x, (16,), norm.weight, 1e-3)):
        x = random(*shape, seed=1).to(dtype).mul_(0.1).requires_grad_()
        out = function(x)
        results.append((out, *torch.autograd.grad((out * random(*shape, seed=2)).sum(), (x, norm.weight))))
    for mine, theirs in zip(*results, strict=True):
        assert mine.dtype == theirs.dtype == dtype
        torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=tolerance)


def test_norm_under_autocast_gives_what_a_matrix_would_have_read() -> None:
    norm, x = RMSNorm(16, eps=1e-5), random(4, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), F.rms_norm(x, (16,), norm.weight, 1e-5), rtol=2**-8, atol=0)


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_norm_gives_no_gradient_to_what_needs_none(frozen: str) -> None:
    norm, x = RMSNorm(16), random(4, 16).requires_grad_(frozen != "x")
    norm.weight.requires_grad_(frozen != "weight")
    norm(x).pow(2).sum().backward()
    assert (x.grad is None) == (frozen == "x") and (norm.weight.grad is None) == (frozen == "weight")


def test_norm_of_types_it_does_not_take_is_torchs() -> None:
    norm, x = RMSNorm(16).bfloat16(), random(4, 16).bfloat16()
    assert torch.equal(norm(x), F.rms_norm(x, (16,), norm.weight, None))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rotations_gradient_is_that_of_its_arithmetic(dtype: torch.dtype) -> None:
    angles = random(2, 5, 1, 4, seed=3)
    results = []
    for function in (rotate, _rotated):
        x = random(2, 5, 3, 8).to(dtype).requires_grad_()
        out = function(x, angles.cos(), angles.sin())
        assert out.dtype == dtype
        results.append((out, *torch.autograd.grad((out * random(2, 5, 3, 8, seed=4).to(dtype)).sum(), x)))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_nothing_but_angles_is_kept_for_a_rotation() -> None:
    angles, saved = random(2, 5, 1, 4), list[Tensor]()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        rotate(random(2, 5, 3, 8).requires_grad_(), angles.cos(), angles.sin())
    assert [t.shape for t in saved] == [angles.shape] * 2
