"""Training stacks: what is known of how they run a step, from a data file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from statistics import geometric_mean
from typing import Literal, cast

from herdlm.base.errors import InputError
from herdlm.plan.job import Sharding

OWN = "herdlm"


@dataclass(frozen=True, slots=True)
class Stack:
    """How a training stack runs a step; stacks.toml says what the values mean."""

    name: str
    match: tuple[str, ...]
    family: str
    kernels: Literal["fused", "eager"]
    attention: Literal["flash2", "flash3", "cudnn", "unfused"]
    tp_overlap: bool
    cp_overlap: bool
    selective: Literal["attention", "half", "elementwise"]
    gradient_bytes: int
    sharding: Sharding
    fp8_casts: int
    loss_bytes: int
    data_inside: bool


@cache
def stacks() -> dict[str, Stack]:
    """All known stacks by name."""
    found = tomllib.loads((files("herdlm.plan") / "stacks.toml").read_text("utf-8"))["stacks"]
    known = {field.name for field in fields(Stack)} - {"name"}
    assert all(set(entry) == known for entry in found.values())
    return {name: Stack(name, **{**entry, "match": tuple(entry["match"])}) for name, entry in found.items()}


def stack_named(name: str | None) -> Stack:
    """A stack by its name; this package's for None.

    Raises:
        InputError: the name is unknown.
    """
    known = stacks()
    if name is not None and name not in known:
        raise InputError(f"the stack {name!r} is unknown", f"Known are {', '.join(known)}")
    return known[name or OWN]


def stack_in(text: str) -> Stack | None:
    """The stack that a text on software mentions, or None."""
    lower = text.lower()
    return next((stack for stack in stacks().values() if any(word in lower for word in stack.match)), None)


def sharding_in(text: str) -> Sharding | None:
    """The kind of data parallelism that a text names, or None."""
    lower = text.lower().replace("_", " ").replace("-", " ")
    kinds = {
        "zero1": ("distributed optimizer", "zero 1", "zero1", "zero stage 1"),
        "zero2": ("zero 2", "zero2", "grad op"),
        "fsdp": ("fsdp", "hsdp", "zero 3", "zero3", "full shard", "fully sharded"),
        "ddp": ("ddp", "data parallel"),
    }
    return cast(Sharding | None, next((kind for kind, words in kinds.items() if any(w in lower for w in words)), None))


def factor_of(stack: Stack, factors: dict[str, float]) -> float:
    """The factor on a stack's computation: its own, else the mean of its family, else of all that are known."""
    if stack.name in factors:
        return factors[stack.name]
    known = stacks()
    family = [factor for name, factor in factors.items() if known[name].family == stack.family]
    return geometric_mean(family or list(factors.values())) if factors else 1.0
