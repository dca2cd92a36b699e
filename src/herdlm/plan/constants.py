"""The fitted constants of the time model, and the widths of its intervals, as a data file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError


@dataclass(frozen=True, slots=True)
class Constants:
    """What is fitted. Each is a share or a factor, so that it holds for other hardware (docs/planner.md).

    Attributes:
        gemm_best: the share of the peak rate that the best shape reaches, by architecture and precision.
        gemm_bf16, gemm_fp8: the share of that which products keep through a step.
        gemm_ramp: the size of a dimension at which half of the rate is lost to it.
        attention_rate: the share of the BF16 peak that a kernel reaches, forward and backward, long rows, heads of 128.
        attention_ramp: the row length at which half of that rate is left.
        attention_heads: the power of head size / 128 that goes with smaller heads.
        fused, eager: bytes of memory traffic over those of a minimal count.
        tp_hidden, cp_hidden, pp_hidden, dp_hidden: the share of traffic that hides behind computation.
        fsdp_hidden: the same of FSDP, which gathers each layer's weights.
        link, network: the share of the specified rate that large collectives reach.
        spread: the loss by each doubling of GPUs that wait for each other.
        stacks: factors on computation by stack, of those with rows enough; others have their family's mean.
        interval: half-width of the 80% interval of log tokens per second: of stacks in the fit, of others.
        origin: date, rows and method of the fit.
    """

    gemm_best: dict[str, float] = field(default_factory=dict)
    gemm_bf16: float = 0.85
    gemm_fp8: float = 0.8
    gemm_ramp: float = 100.0
    attention_rate: dict[str, float] = field(default_factory=dict)
    attention_ramp: float = 300.0
    attention_heads: float = 0.3
    fused: float = 1.0
    eager: float = 2.0
    tp_hidden: float = 0.6
    cp_hidden: float = 0.6
    pp_hidden: float = 0.7
    dp_hidden: float = 0.8
    fsdp_hidden: float = 0.7
    link: float = 0.8
    network: float = 0.95
    spread: float = 0.002
    stacks: dict[str, float] = field(default_factory=dict)
    interval: dict[str, float] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)


def read_constants(path: Path | None = None) -> Constants:
    """The constants of a file, or the shipped ones.

    Raises:
        InputError: the file is no such file.
    """
    if path is None:
        return _shipped()
    try:
        return _parsed(path.read_text("utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} has no constants of the planner: {error}", "Fit them with benchmarks/planner.py"
        ) from error


@cache
def _shipped() -> Constants:
    return _parsed((files("herdlm.plan") / "constants.json").read_text("utf-8"))


def _parsed(text: str) -> Constants:
    values = json.loads(text)
    known = {each.name for each in fields(Constants)}
    if not isinstance(values, dict) or set(values) != known:
        raise ValueError(f"its keys must be {sorted(known)}")
    return Constants(**values)


def constants_text(constants: Constants) -> str:
    """The constants as the text of their file."""
    return json.dumps(asdict(constants), indent=1) + "\n"
