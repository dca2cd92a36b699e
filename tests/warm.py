"""Runs programs in processes forked from one that has imported what takes seconds to import, torch above all.

A test that calls a program as a user does, in a process of its own, needs no fresh interpreter for it.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock, Timer
from typing import Any

ROOT = Path(__file__).parents[1]
LIBRARIES = ("numpy", "pyarrow.parquet", "pydantic", "rich.progress", "safetensors.torch", "tokenizers", "torch")
_one_at_a_time = Lock()


def run(
    module: str,
    *arguments: object,
    env: dict[str, str] | None = None,
    text: str = "",
    shared: tuple[str, ...] = (),
    seconds: float = 280,
) -> subprocess.CompletedProcess[str]:
    """``python -m module arguments`` in the project's folder, with captured output.

    Args:
        env: added to the environment. What libraries read when they load has been read already.
        text: what the program reads from standard input.
        shared: modules to import before forking, for this and later calls.
    """
    with _one_at_a_time, tempfile.TemporaryDirectory() as folder:
        given, out, err = (Path(folder, name) for name in ("in", "out", "err"))
        given.write_text(text)
        asked = {
            "module": module,
            "arguments": [str(argument) for argument in arguments],
            "environment": dict(os.environ) | (env or {}),
            "shared": shared,
            "in": str(given),
            "out": str(out),
            "err": str(err),
        }
        code = _ask(asked, seconds)
        return subprocess.CompletedProcess(asked["arguments"], code, out.read_text(), err.read_text())


def _ask(asked: dict[str, Any], seconds: float) -> int:
    server = _server()
    assert server.stdin and server.stdout
    server.stdin.write(json.dumps(asked) + "\n")
    server.stdin.flush()
    late = Timer(seconds, os.killpg, (server.pid, signal.SIGKILL))
    late.start()
    told = server.stdout.readline()
    late.cancel()
    if not told:
        _server.cache_clear()
        raise AssertionError(f"{asked['module']} did not end within {seconds} seconds")
    return int(told)


@cache
def _server() -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.warm"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # with a program that an interrupted test left behind
    server.wait()


def main() -> None:
    """Fork for each line of standard input, and tell how the child ended."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for library in LIBRARIES:
        importlib.import_module(library)
    for line in sys.stdin:
        asked = json.loads(line)
        for module in asked["shared"]:
            importlib.import_module(module)
        child = os.fork()
        if not child:
            answers.close()
            _become(asked)
            return
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


def _become(asked: dict[str, Any]) -> None:
    """The program: what it raises ends this process as it would end any."""
    os.dup2(os.open(asked["in"], os.O_RDONLY), 0)
    for stream, path in ((1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.stdin = os.fdopen(0)
    sys.path.insert(1, str(Path(ROOT, "benchmarks")))  # whose programs find each other as scripts do
    sys.argv = [asked["module"], *asked["arguments"]]
    runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
