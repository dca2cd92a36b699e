"""Reads a recipe of synthetic data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from herdlm.align.synth.config import SynthConfig, localize
from herdlm.base.recipe import apply_overrides, merge, parse, read_toml


def read_synth_recipe(path: Path, overrides: Iterable[str] = (), *, teacher: str | None = None) -> SynthConfig:
    """The recipe in a file. Its paths are relative to the file; those of overrides and of the teacher to this folder.

    Raises:
        InputError: the file or a key is wrong.
    """
    given = apply_overrides({}, overrides)
    if teacher is not None:
        given["teacher"] = teacher
    localize(given, Path.cwd())
    return parse(SynthConfig, {"name": path.stem} | merge(read_toml(path, localize=localize), given), str(path))
