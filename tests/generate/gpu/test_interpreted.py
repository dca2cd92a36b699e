"""What runs on a GPU, by Triton's interpreter on this CPU, in a process that has it switched on from the start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "interpreted"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("test_*.py")))
def test_by_the_interpreter(name):
    pytest.importorskip("triton", reason="comes with torch on CUDA; the kernels cannot be tried without it")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", str(FOLDER / name)],
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
        cwd=FOLDER.parents[2],
        env=os.environ | {"TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
