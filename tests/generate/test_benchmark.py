"""The benchmark of generation runs, on a shape small enough for a test, and its ratios are of its own figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "generate.py"


@pytest.mark.slow
def test_arms_generate_the_same_and_are_compared(tmp_path):
    pytest.importorskip("transformers")
    command = [
        sys.executable,
        str(PROGRAM),
        "--shape",
        "tiny",
        "--rounds",
        "1",
        "--static-batches",
        "32",
        "--cases",
        "samples",
        "apart",
        "one",
        "--arms",
        "herdlm",
        "transformers float32",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = tmp_path.glob("generate-cpu-*.json")
    report = json.loads(file.read_text(encoding="utf-8"))
    cases = report["cases"]
    assert set(cases["apart"]) == {"herdlm"}
    for case in ("samples", "one"):
        for arm in cases[case].values():
            assert arm["peak_mib"] > arm["before_model_mib"] > 0
            assert arm["first_token_seconds"] > 0
    expected = {("samples", "transformers float32"), ("one", "transformers float32"), ("samples", "apart")}
    assert {(row["case"], row["over"]) for row in report["ratios"]} == expected
    for row in report["ratios"]:
        over = cases["apart"]["herdlm"] if row["over"] == "apart" else cases[row["case"]][row["over"]]
        ours = cases[row["case"]]["herdlm"]
        assert row["cpu"] == pytest.approx(ours["tokens_per_cpu_second"] / over["tokens_per_cpu_second"], abs=0.01)
