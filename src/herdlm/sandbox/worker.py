"""Processes that run jobs: one that stays and forks itself for each, or a new one for each."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import herdlm
from herdlm.base.errors import HerdError
from herdlm.sandbox.inside import frames
from herdlm.sandbox.limits import Limits

GRACE_SECONDS = 20.0  # for what surrounds a run, on a machine that is busy
SOURCE = str(Path(herdlm.__file__).parents[1])
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")


@dataclass(frozen=True)
class Setup:
    """What all workers of a sandbox have in common.

    Attributes:
        python: the interpreter of Python programs.
        readable: further files and folders that programs may read, at their own paths.
        packages: folders from which Python programs import, and which they may therefore read.
        limits: the limits where a run gives none; what an isolation fixes at its start follows them.
        image: the image of a container runtime.
    """

    python: str
    limits: Limits
    readable: Sequence[str] = ()
    packages: Sequence[str] = ()
    image: str = ""

    def paths(self) -> list[str]:
        """All that programs may read: libraries and commands of the system, the interpreter, and what the user named."""
        prefix = subprocess.run(  # noqa: S603 - our own interpreter
            [self.python, "-I", "-S", "-c", "import sys; print(sys.base_prefix)"],
            capture_output=True,
            text=True,
            check=True,
            env={},
        ).stdout.strip()
        named = [*SYSTEM, *SYSTEM_FILES, prefix, *self.readable, *self.packages]
        return [path for path in dict.fromkeys(named) if Path(path).exists()]


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
    """Kill a process with its group; returns the last line that it wrote to standard error."""
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    for pipe in (process.stdin, process.stdout):
        try:
            pipe.close()
        except OSError:
            pass
    os.set_blocking(process.stderr.fileno(), False)
    text = process.stderr.read() or b""
    process.stderr.close()
    return text.decode("utf-8", "replace").strip().rpartition("\n")[2]


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
        self._paths = setup.paths()
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        code = f"import sys; sys.path[0:0] = [{SOURCE!r}]; from herdlm.sandbox.inside.zygote import main; main()"
        process = start([self._setup.python, "-I", "-c", code])
        try:
            send(process, {"readable": self._paths, "packages": list(self._setup.packages)})
            receive(process, GRACE_SECONDS)
        except Lost as error:
            said = end(process)
            raise HerdError(f"the sandbox's process did not start: {said or error}") from error
        return process

    def execute(self, job: dict[str, Any], tests: dict[str, Any] | None) -> dict[str, Any]:
        try:
            send(self._process, job, tests)
            return receive(self._process, seconds_for(job))
        except Lost as error:
            said = end(self._process)
            self._process = self._start()
            return lost(said or str(error), job)

    def close(self) -> None:
        end(self._process)


@dataclass
class Command:
    """A new process for each job, isolated by another program: ``prefix(folder)`` is that program's command line.

    Attributes:
        setup: what all workers have in common.
        prefix: arguments before the interpreter's.
        folder: the run's folder in the isolation; None to make one on this machine for each run.
        own_pids: whether the isolation has a process namespace of its own.
        python: the interpreter in the isolation.
    """

    setup: Setup
    prefix: Callable[[], Sequence[str]]
    folder: str | None = "/tmp"  # noqa: S108 - in the isolation
    own_pids: bool = True
    python: str = field(default="")

    def execute(self, job: dict[str, Any], tests: dict[str, Any] | None) -> dict[str, Any]:
        folder = self.folder or tempfile.mkdtemp(prefix="herdlm-sandbox-")
        code = (
            f"import sys; sys.path[0:0] = [{SOURCE!r}]; sys.path += {list(self.setup.packages)!r}; "
            f"from herdlm.sandbox.inside.supervise import once; once({folder!r}, {self.own_pids!r})"
        )
        process = start([*self.prefix(), self.python or self.setup.python, "-I", "-c", code])
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
