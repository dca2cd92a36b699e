"""Runs a minute in the sandbox, against the same Python without one and against one bubblewrap for each run.

    python benchmarks/sandbox.py [--seconds 5] [--rounds 3] [--workers 2] [--out benchmarks/results]

Every arm runs the same short program on as many threads as there are workers, for a number of seconds, in turn over
several rounds; a figure is the median over rounds. An arm that cannot run here says why.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.sandbox.sandbox import Sandbox, open_sandbox
from herdlm.sandbox.worker import python_here

PROGRAM = "import math\nprint(sum(math.isqrt(n) for n in range(1000)))\n"
CODE = "import math\ndef f(n):\n    return sum(math.isqrt(k) for k in range(n))\n"
TESTS = "assert f(0) == 0\nassert f(10) == 16\nassert f(1000) == 20584\n"


def plain(program: str) -> None:
    """The program in a new process of the interpreter that the sandbox uses.

    In a session of its own, as in the sandbox: the scheduler shares a busy machine out among sessions.
    """
    command = [python_here(), "-I", "-c", program]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, start_new_session=True)


def sandboxed(sandbox: Sandbox) -> None:
    result = sandbox.run(PROGRAM)
    assert result.status == "ok", result


def tested(sandbox: Sandbox) -> None:
    result = sandbox.run_tests(CODE, TESTS)
    assert result.passed, result


def rate(arm: Callable[[], None], threads: int, seconds: float) -> float:
    """Runs a minute of ``arm`` on several threads."""
    begin = time.perf_counter()

    def repeat(_: int) -> int:
        count = 0
        while time.perf_counter() - begin < seconds:
            arm()
            count += 1
        return count

    with ThreadPoolExecutor(threads) as pool:
        count = sum(pool.map(repeat, range(threads)))
    return 60 * count / (time.perf_counter() - begin)


def measure(workers: int, seconds: float, rounds: int) -> dict[str, Any]:
    """The figures of all arms."""
    arms: dict[str, Callable[[], None]] = {
        "no sandbox: program": lambda: plain(PROGRAM),
        "no sandbox: code with its tests": lambda: plain(CODE + TESTS),
    }
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        for kind in ("namespaces", "bubblewrap"):
            try:
                opened = stack.enter_context(open_sandbox(kind, workers=workers))
            except InputError as error:
                absent[kind] = error.what
                continue
            arms[f"{kind}: program"] = lambda opened=opened: sandboxed(opened)
            arms[f"{kind}: code beside its tests"] = lambda opened=opened: tested(opened)
        rates: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(rounds):
            for name, arm in arms.items():
                rates[name].append(rate(arm, workers, seconds))
    medians = {name: statistics.median(each) for name, each in rates.items()}
    base = medians["no sandbox: program"]
    return {
        "runs a minute": {name: round(value) for name, value in medians.items()},
        "runs a minute, each round": {name: [round(value) for value in each] for name, each in rates.items()},
        "times as many as without a sandbox": {name: round(value / base, 2) for name, value in medians.items()},
        "not measured": absent,
    }


def bubblewrap_version() -> str:
    program = shutil.which("bwrap")
    if program is None:
        return "not installed"
    return subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout.split()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load average at the start": os.getloadavg()[0],
        "versions": {
            "python": platform.python_version(),
            "kernel": platform.release().partition("-")[0],
            "bubblewrap": bubblewrap_version(),
        },
        "workers": options.workers,
    }
    report |= measure(options.workers, options.seconds, options.rounds)
    print(json.dumps(report, indent=2))
    if options.out:
        path = options.out / f"sandbox-cpu-{report['date']}.json"
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
