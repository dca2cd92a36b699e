"""Processes that run jobs: one that stays and forks itself for each, or a new one for each."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import herdlm
from herdlm.base.errors import HerdError, InputError
from herdlm.sandbox import control_group
from herdlm.sandbox.control_group import ControlGroup
from herdlm.sandbox.inside import frames
from herdlm.sandbox.limits import Limits

SAID_CHARACTERS = 300
GRACE_SECONDS = 20.0  # for what surrounds a run, on a machine that is busy
SOURCE = str(Path(herdlm.__file__).parents[1])
LIBRARIES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
SYSTEM = (*LIBRARIES, "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
FOLDER = "/tmp"  # noqa: S108 - in an isolation: a program's only writable folder


@dataclass(frozen=True)
class Setup:
    """What all workers of a sandbox have in common.

    Attributes:
        python: the interpreter of Python programs.
        limits: the limits of a first run, which tries an isolation.
        readable: further files and folders that programs may read, at their own paths.
        packages: folders from which Python programs import, and which they may therefore read.
        image: the image of a container runtime.
    """

    python: str
    limits: Limits
    readable: Sequence[str] = ()
    packages: Sequence[str] = ()
    image: str = ""

    @cached_property
    def paths(self) -> list[str]:
        """All that programs may read: libraries and commands of the system, the interpreter, and what the user named.

        Raises:
            InputError: one of them does not exist, or lies where programs have a folder of their own.
        """
        named = [prefix(self.python), *self.readable, *self.packages]
        for path in named:
            if not Path(path).exists():
                raise InputError(f"{path} does not exist, so programs cannot read it", "Check readable and packages")
            if Path(path).is_relative_to(FOLDER):
                raise InputError(f"{path} is out of sight: {FOLDER} is each program's own", "Move it to another folder")
        return [path for path in dict.fromkeys([*SYSTEM, *named]) if Path(path).exists()]


def prefix(python: str) -> str:
    """The folder in which an interpreter is installed."""
    question = [python, "-I", "-S", "-c", "import sys; print(sys.base_prefix)"]
    try:
        return subprocess.run(question, capture_output=True, text=True, check=True, env={}).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(
            f"the interpreter {python} does not start: {error}", "Give the path of a Python as python"
        ) from error


def python_here() -> str:
    """The interpreter that runs this, without a virtual environment."""
    return str(Path(sys.executable).resolve())


class Worker(Protocol):
    """Runs one job at a time."""

    def execute(self, job: dict[str, Any], tests: dict[str, Any] | None) -> dict[str, Any]:
        """Run a job, with the frame of its tests if it has some; returns the report of ``inside/supervise.py``."""

    def close(self) -> None:
        """End the worker's processes."""


class Lost(Exception):  # noqa: N818 - a state, not an error of its own
    """A worker's process ended, or gave no answer in time."""


def receive(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
    """The next frame that a process writes."""
    assert process.stdout is not None
    descriptor, deadline = process.stdout.fileno(), time.monotonic() + seconds
    content, wanted = bytearray(), 8
    while len(content) < wanted:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(max(0, 1000 * (deadline - time.monotonic()))):
            raise Lost(f"no answer within {seconds:.0f} seconds")
        part = os.read(descriptor, min(2**20, wanted - len(content)))
        if not part:
            raise Lost("it ended without an answer")
        content += part
        if wanted == 8 and len(content) == 8:
            wanted += int.from_bytes(content, "little")
            if wanted > frames.LONGEST:
                raise Lost("its answer is too long")
    return frames.unpack(bytes(content[8:]))


def seconds_for(job: dict[str, Any]) -> float:
    return float(job["limits"]["wall_seconds"]) + GRACE_SECONDS


def start(arguments: Sequence[str], folder: str = "/") -> subprocess.Popen[bytes]:
    """Start a process with pipes and without our environment."""
    environment = {name: os.environ[name] for name in ("PATH", "XDG_RUNTIME_DIR", "DOCKER_HOST") if name in os.environ}
    return subprocess.Popen(  # noqa: S603 - arguments of our own
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=folder,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> str:
    """Kill a process with its group; returns the end of what it wrote to standard error, in one line."""
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            pipe.close()
    os.set_blocking(process.stderr.fileno(), False)
    text = process.stderr.read() or b""
    process.stderr.close()
    return " ".join(text.decode("utf-8", "replace").split())[-SAID_CHARACTERS:]


def lost(reason: str, job: dict[str, Any]) -> dict[str, Any]:
    """The report of a run whose supervisor gave none."""
    return {
        "status": "lost",
        "exit_code": 1,
        "stdout": "",
        "stderr": f"the run was lost: {reason}\n",
        "seconds": float(job["limits"]["wall_seconds"]),
        "cpu_seconds": 0.0,
        "verdict": "",
    }


def send(process: subprocess.Popen[bytes], *messages: dict[str, Any] | None) -> None:
    """Send frames to a process."""
    assert process.stdin is not None
    try:
        for message in messages:
            if message is not None:
                frames.write_all(process.stdin.fileno(), frames.pack(message))
    except OSError as error:
        raise Lost(str(error)) from error


class Zygote:
    """A warm interpreter in namespaces (``inside/zygote.py``). It is started again if it ends."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._group: ControlGroup | None = None
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        code = f"import sys; sys.path[0:0] = [{SOURCE!r}]; from herdlm.sandbox.inside.zygote import main; main()"
        process = start([self._setup.python, "-I", "-c", code])
        self._group = control_group.make(process.pid, self._setup.limits)  # before it starts others
        try:
            send(process, {"readable": self._setup.paths, "packages": list(self._setup.packages)})
            receive(process, GRACE_SECONDS)
        except Lost as error:
            said = end(process)
            self._leave_group()
            raise HerdError(f"the sandbox's process did not start: {said or error}") from error
        return process

    def execute(self, job: dict[str, Any], tests: dict[str, Any] | None) -> dict[str, Any]:
        kills = 0
        if self._group:
            self._group.limit(Limits.from_dict(job["limits"]))
            kills = self._group.kills()
        try:
            send(self._process, job, tests)
            report = receive(self._process, seconds_for(job))
        except Lost as error:
            said = end(self._process)
            self._leave_group()
            self._process = self._start()
            return lost(said or str(error), job)
        if self._group and report["status"] == "error" and self._group.kills() > kills:
            report["status"] = "memory"
        return report

    def _leave_group(self) -> None:
        if self._group:
            self._group.remove()
            self._group = None

    def close(self) -> None:
        end(self._process)
        self._leave_group()


@dataclass
class Command:
    """A new process for each job, isolated by another program.

    Attributes:
        setup: what all workers have in common.
        prefix: that program's command line, for the limits of a job.
        source: where the isolation shows the folder that holds herdlm.
        folder: the run's folder in the isolation; None to make one on this machine for each run.
        own_pids: whether the isolation has a process namespace of its own.
        python: the interpreter in the isolation.
    """

    setup: Setup
    prefix: Callable[[Limits], Sequence[str]]
    source: str
    python: str
    folder: str | None = FOLDER
    own_pids: bool = True

    def execute(self, job: dict[str, Any], tests: dict[str, Any] | None) -> dict[str, Any]:
        folder = self.folder or tempfile.mkdtemp(prefix="herdlm-sandbox-")
        code = (
            f"import sys; sys.path[0:0] = [{self.source!r}]; sys.path += {list(self.setup.packages)!r}; "
            f"from herdlm.sandbox.inside.supervise import once; once({folder!r}, {self.own_pids!r})"
        )
        process = start([*self.prefix(Limits.from_dict(job["limits"])), self.python, "-I", "-c", code])
        try:
            send(process, job, tests)
            return receive(process, seconds_for(job))
        except Lost as error:
            return lost(end(process) or str(error), job)
        finally:
            if process.returncode is None:
                end(process)
            if self.folder is None:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Nothing stays between jobs."""
