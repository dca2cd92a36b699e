"""Problems of HumanEval and MBPP with their reference solutions, and verdicts of plain execution."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.sandbox.mutants import entry_point

FOLDER = Path(__file__).parent / "problems"
# Runs code and tests in one namespace of a fresh process, as it is usually done.
PLAIN = """
import json, sys
code, tests = json.load(sys.stdin)
names = {"__name__": "candidate"}
exec(code, names)
exec(tests, names)
"""
SECONDS = 60


@dataclass(frozen=True)
class Problem:
    """A problem with a solution; ``prelude`` is the part of the statement that is code."""

    name: str
    code: str
    tests: str
    entry_point: str
    prelude: str


def humaneval(path: Path) -> list[Problem]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [
        Problem(
            row["task_id"],
            row["prompt"] + row["canonical_solution"],
            f"{row['test']}\ncheck({row['entry_point']})\n",
            row["entry_point"],
            row["prompt"],
        )
        for row in rows
    ]


def mbpp(path: Path) -> list[Problem]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    problems = []
    for row in rows:
        tests = "\n".join([row["test_setup_code"], *row["test_list"], ""])
        problems.append(Problem(f"MBPP/{row['task_id']}", row["code"], tests, entry_point(row["code"], tests), ""))
    return problems


def passes_plainly(code: str, tests: str) -> bool:
    """The verdict of a process without sandbox; whether it ended with 0 in time."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", PLAIN],
            input=json.dumps([code, tests]),
            text=True,
            capture_output=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
