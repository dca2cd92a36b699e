"""Triton's interpreter, put right where it is wrong, for the tests of this folder.

They are collected only where it is switched on; ``tests/generate/gpu/test_interpreted.py`` runs them in a process of
their own. The interpreter of Triton 3.6 keeps bfloat16 and FP8 as bits. It cuts bfloat16 off instead of rounding, does
not carry into the exponent of FP8, multiplies the bits themselves in a product of matrices, and does not know numpy
2.4.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor


def mend_interpreter() -> None:
    """Let the interpreter compute what a GPU does."""
    import triton.language as tl
    from triton.runtime import interpreter

    types = {
        tl.float32: (torch.float32, torch.uint32),
        tl.float16: (torch.float16, torch.uint16),
        tl.bfloat16: (torch.bfloat16, torch.uint16),
        tl.float8e4nv: (torch.float8_e4m3fn, torch.uint8),
    }

    def convert(values: Any, source: Any, target: Any, rounding: Any) -> Any:
        (before, _), (after, bits) = types[source], types[target]
        return torch.from_numpy(np.array(values)).view(before).to(after).view(bits).numpy()

    def dot(builder: Any, a: Any, b: Any, d: Any, precision: Any, most_imprecise: Any) -> Any:
        wide = (convert(x.data, x.dtype, tl.float32, None).view(np.float32) for x in (a, b))
        return interpreter.TensorHandle(np.matmul(*wide) + d.data, d.dtype.scalar)

    patch = interpreter._patch_lang_tensor

    def patch_tensor(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._convert_float = convert
    interpreter.InterpreterBuilder.create_dot = dot
    interpreter._patch_lang_tensor = patch_tensor


if os.environ.get("TRITON_INTERPRET") == "1":
    mend_interpreter()
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def small_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes milliseconds a program: few of them, and splits already where there are few keys."""
    from herdlm.generate.gpu import launches as gpu_launches

    monkeypatch.setattr(gpu_launches, "PROGRAMS", 8)
    monkeypatch.setattr(gpu_launches, "LEAST_SPLITS", 2)
    monkeypatch.setattr(gpu_launches, "MOST_SPLITS", 4)
    monkeypatch.setattr(gpu_launches, "decode_blocks", lambda *_: (16, 1))


@pytest.fixture
def scaled_mm(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's product of FP8 on Hopper: with what it demands, and its numbers; torch 2.11 has none by rows on a CPU."""

    def product(
        a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, *, out_dtype: torch.dtype, use_fast_accum: bool
    ) -> Tensor:
        assert not use_fast_accum
        assert a.dtype == b.dtype == torch.float8_e4m3fn and out_dtype == torch.bfloat16
        assert a.is_contiguous() and b.t().is_contiguous() and all(size % 16 == 0 for size in b.shape)
        assert scale_a.shape == (len(a), 1) and scale_b.shape == (1, b.shape[1])
        assert all(scale.dtype == torch.float32 and scale.is_contiguous() for scale in (scale_a, scale_b))
        return ((a.double() @ b.double()) * scale_a.double() * scale_b.double()).to(out_dtype)

    monkeypatch.setattr(torch, "_scaled_mm", product)
