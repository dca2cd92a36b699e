"""The smoke recipe, run once from the command line for all tests that look at a finished run."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import warm

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "recipes" / "smoke.toml"


def toml_blocks(page: Path) -> list[str]:
    """The TOML examples of a documentation page, in order."""
    return [block.split("```")[0] for block in page.read_text(encoding="utf-8").split("```toml\n")[1:]]


def herdlm(*arguments, **more) -> subprocess.CompletedProcess:
    """The command line as a user calls it, in a process of its own."""
    return warm.run("herdlm.cli", *arguments, env={"COLUMNS": "200"}, **more)


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """The folder of a finished smoke run. Tests that change it take :func:`smoke_copy`."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    done = herdlm("run", SMOKE, "--out", folder, seconds=1500)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def smoke_copy(smoke_run, tmp_path):
    """A copy of the finished smoke run."""
    folder = tmp_path / "run"
    shutil.copytree(smoke_run, folder, symlinks=True)
    return folder


def manifest(folder: Path, stage: str) -> dict:
    """The manifest of a finished stage."""
    return json.loads((folder / "stages" / stage / "manifest.json").read_text())
