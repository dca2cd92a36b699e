"""HERDLM_CPU: what it changes, here and in processes that are started."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from herdlm.base import processor
from herdlm.base.errors import InputError
from herdlm.generate.matrix import fastest_type

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("choice", "machine", "units", "bfloat16", "float16"),
    [
        ("native", "x86_64", True, True, False),
        ("native", "x86_64", False, False, False),
        ("native", "aarch64", False, True, True),
        ("avx2", "x86_64", True, False, False),
        ("avx2", "aarch64", False, False, False),
        ("bf16", "x86_64", False, True, False),
        ("bf16", "aarch64", False, True, True),
    ],
)
def test_models_in_sixteen_bits_compute_in_float32_where_the_processor_lacks_units(
    choice, machine, units, bfloat16, float16, monkeypatch
):
    monkeypatch.setenv("HERDLM_CPU", choice)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units)
    assert fastest_type(CPU, torch.bfloat16) == (torch.bfloat16 if bfloat16 else torch.float32)
    assert fastest_type(CPU, torch.float16) == (torch.float16 if float16 else torch.float32)
    assert fastest_type(CPU, torch.float64) == torch.float64
    assert fastest_type(torch.device("cuda"), torch.float16) == torch.float16


SEEN = """
import json
import torch
from numba import njit
from herdlm.generate.matrix import fastest_type
@njit("float32(float32[::1], float32[::1])", fastmath=True)
def dot(a, b):
    total = 0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total
(assembly,) = dot.inspect_asm().values()
print(json.dumps([
    torch.backends.cpu.get_cpu_capability(),
    torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    str(fastest_type(torch.device("cpu"), torch.bfloat16)),
    "zmm" in assembly, "ymm" in assembly,
]))
"""


@pytest.mark.skipif(not processor.is_x86(), reason="the instruction sets are those of x86")
def test_libraries_of_a_process_and_of_those_it_starts_keep_to_avx2():
    script = f"import subprocess, sys, herdlm\nsubprocess.run([sys.executable, '-c', {SEEN!r}], check=True)"
    environment = os.environ | {"HERDLM_CPU": "avx2"}
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == ["AVX2", False, "torch.float32", False, True]


def test_an_unknown_kind_of_processor_is_refused(monkeypatch):
    monkeypatch.setenv("HERDLM_CPU", "avx9")
    with pytest.raises(InputError, match="HERDLM_CPU=avx9 .* Use native, avx2, bf16"):
        fastest_type(CPU, torch.bfloat16)
    told = subprocess.run([sys.executable, "-m", "herdlm.cli", "--version"], capture_output=True, text=True)
    assert told.returncode == 2
    assert told.stderr.startswith("herdlm: HERDLM_CPU=avx9")
