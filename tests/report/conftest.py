"""The made-up run as a fixture: to change before it is built, or built and reported once for all who only read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from herdlm.recipe import read_recipe
from herdlm.run.stage import Context
from herdlm.run.stages.report import report_stage
from tests.report.made_up_run import TOML, MadeUpRun


@pytest.fixture
def made_up_run(tmp_path: Path) -> MadeUpRun:
    return _unbuilt(tmp_path)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeUpRun, Context, dict[str, Any]]:
    run = _unbuilt(tmp_path_factory.mktemp("finished"))
    context = run.build()
    return run, context, report_stage(context)


def _unbuilt(folder: Path) -> MadeUpRun:
    path = folder / "made-up.toml"
    path.write_text(TOML, encoding="utf-8")
    return MadeUpRun(folder / "run", read_recipe(path))
