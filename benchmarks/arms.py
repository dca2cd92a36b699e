"""Arms of a benchmark in processes of their own, which are given work and answer in lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def answer(value: dict[str, Any]) -> None:
    """In an arm: write one line of JSON to the parent."""
    print("=" + json.dumps(value), flush=True)


def resident(key: str) -> float:
    """A figure of this process from the kernel, MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"the kernel does not say {key}: this benchmark needs Linux")


class Arm:
    """An arm's process: ``program`` with ``options``. Its first answer is ``ready``."""

    def __init__(self, program: str, *options: str | Path, threads: int = 1) -> None:
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self.process = subprocess.Popen(
            [sys.executable, program, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | limits,
        )
        self.ready = self.read()

    def read(self) -> dict[str, Any]:
        """The next answer."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("="):
                answered: dict[str, Any] = json.loads(line[1:])
                return answered
        raise RuntimeError(f"an arm ended with status {self.process.wait()}: its message stands above")

    def ask(self, line: str) -> dict[str, Any]:
        """What it answers to a line."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)
