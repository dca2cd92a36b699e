"""Decides whether a model generates with code compiled for this processor (:mod:`herdlm.generate.cpu.kernels`)."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from herdlm.model.config import ModelConfig

SHARED_FROM = 2**18  # numbers from which all of torch's threads beat one thread of compiled code
COMPILED_FROM = 10_000_000  # parameters; smaller models do not gain back the seconds that compiling takes


def worth_compiling(config: ModelConfig, device: torch.device, compute: torch.dtype) -> bool:
    """Whether to compile for a model: a large one, on a CPU, with Numba installed."""
    known = device.type == "cpu" and compute in (torch.float32, torch.bfloat16)
    return known and config.parameters >= COMPILED_FROM and find_spec("numba") is not None


def kernels() -> Any:
    """The module :mod:`herdlm.generate.cpu.kernels`, compiled."""
    module = import_module("herdlm.generate.cpu.kernels")
    module.compile_for(torch.float32)
    return module


def compiled_pays(x: Tensor) -> bool:
    """Whether one thread of compiled code is faster than all of torch's over ``x``."""
    return torch.get_num_threads() == 1 or x.numel() < SHARED_FROM
