"""Checks, before a run starts, that the files its stages will read are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from herdlm.align.given_files import GivenFile, check_there, given_files
from herdlm.recipe import Recipe
from herdlm.run.stage import Stage


def check_needed_files(recipe: Recipe, stages: Sequence[Stage]) -> None:
    """Check the files of post-training and of standard tasks that ``stages`` read.

    Raises:
        InputError: some do not exist; names each with its key.
    """
    work = {stage.work.rpartition(":")[2] for stage in stages}
    readers = {"align.data": "read_stage", "align.gate": "gate_stage", "align": "synth_stage"}
    given = given_files(recipe.align) if recipe.align else []
    needed = [file for file in given if readers[file.key.rpartition(".")[0]] in work]
    if recipe.evaluate and "benchmarks_stage" in work:
        needed += [GivenFile("evaluate.data", Path(path)) for path in recipe.evaluate.data]
    check_there(needed)
