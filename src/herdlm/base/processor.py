"""What is chosen by the processor, and how to have it chosen as on another one.

Types and instruction sets differ between processors, and with them the last bits of results. ``HERDLM_CPU`` chooses:

- not set, or ``native``: by the processor at hand;
- ``avx2``: as on an x86 processor with AVX2 and nothing wider: models in 16 bits generate in float32, and torch,
  oneDNN, MKL, FBGEMM and Numba keep to AVX2;
- ``bf16``: as on a processor with units for BF16: models in BF16 generate in BF16, which torch emulates elsewhere.

Importing ``herdlm`` hands the choice on to the libraries by their own environment variables, which they read when they
first compute; so ``herdlm`` has to be imported before that. Child processes inherit all of them.
"""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Literal, cast, get_args

from herdlm.base.errors import InputError

if TYPE_CHECKING:
    import torch

VARIABLE = "HERDLM_CPU"
Choice = Literal["native", "avx2", "bf16"]

AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels, and what torch.compile makes
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",  # packed matrices
    "NUMBA_CPU_NAME": "haswell",  # the first with AVX2
    "NUMBA_CPU_FEATURES": "+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt",
}


def choice() -> Choice:
    """The value of ``HERDLM_CPU``.

    Raises:
        InputError: it is none of those above.
    """
    value = os.environ.get(VARIABLE) or "native"
    if value not in get_args(Choice):
        raise InputError(f"{VARIABLE}={value} names no kind of processor", f"Use {', '.join(get_args(Choice))}")
    return cast(Choice, value)


def is_x86() -> bool:
    """Whether this is an x86 processor of 64 bits."""
    return platform.machine() in ("x86_64", "AMD64")


def limit_instructions() -> None:
    """Make libraries that have not computed yet keep to the instruction set that was chosen."""
    if os.environ.get(VARIABLE) == "avx2" and is_x86():
        os.environ.update(AVX2)


def inherited() -> dict[str, str]:
    """The environment variable for processes on other machines, which do not inherit this one's."""
    return {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}


def has_units_for(dtype: torch.dtype) -> bool:
    """Whether the chosen processor multiplies numbers of ``dtype``, bfloat16 or float16, without emulation.

    Raises:
        InputError: see :func:`choice`.
    """
    import torch

    chosen, bfloat16 = choice(), dtype == torch.bfloat16
    if chosen == "avx2":
        return False
    if not is_x86() or (chosen == "bf16" and bfloat16):
        return True
    return bfloat16 and torch.cpu._is_avx512_bf16_supported()
