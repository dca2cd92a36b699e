"""Reads the texts of generators, which are data files of this package."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def table(name: str) -> dict[str, Any]:
    """A TOML file, such as ``tools/bank.toml``."""
    return tomllib.loads(files("herdlm.align.synth").joinpath(name).read_text("utf-8"))


@cache
def lines(name: str) -> tuple[str, ...]:
    """The lines of a text file that are not blank."""
    text = files("herdlm.align.synth").joinpath(name).read_text("utf-8")
    return tuple(line for line in text.splitlines() if line.strip())
