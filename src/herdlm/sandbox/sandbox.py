"""The sandbox: a pool of workers that run programs and tests."""

from __future__ import annotations

import base64
import os
import queue
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from herdlm.base.errors import InputError
from herdlm.sandbox.isolation import REMOTE, choose
from herdlm.sandbox.limits import Limits
from herdlm.sandbox.remote import RemoteWorker
from herdlm.sandbox.result import Result, TestResult
from herdlm.sandbox.worker import Setup, Worker, python_here


@dataclass(frozen=True)
class Job:
    """A program to run; see :meth:`Sandbox.run` for the fields."""

    program: str
    stdin: str = ""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    interpreter: str = "python"
    limits: Limits | None = None


@dataclass(frozen=True)
class TestJob:
    """Code to test; see :meth:`Sandbox.run_tests` for the fields."""

    __test__ = False  # not a class of tests for pytest

    code: str
    tests: str
    entry_point: str | None = None
    prelude: str = ""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    limits: Limits | None = None


class Sandbox:
    """Runs programs in isolation; made by :func:`open_sandbox`. Any thread may call it.

    Attributes:
        isolation: the kind that was found, or the address of a remote sandbox.
        limits: those of runs that give none.
        visible: files and folders of this machine that programs may read.
    """

    def __init__(self, isolation: str, workers: Sequence[Worker], limits: Limits, visible: Sequence[str] = ()) -> None:
        self.isolation = isolation
        self.visible = visible
        self.limits = limits
        self._all = workers
        self._free: queue.LifoQueue[Worker] = queue.LifoQueue()
        for worker in workers:
            self._free.put(worker)

    def run(
        self,
        program: str,
        *,
        stdin: str = "",
        files: Mapping[str, str | bytes] | None = None,
        interpreter: str = "python",
        limits: Limits | None = None,
    ) -> Result:
        """Run a program from a clean start to its end, or to the first limit it reaches.

        Args:
            program: its text.
            stdin: what it reads from standard input.
            files: further files in its folder, by their relative paths.
            interpreter: ``python`` for the warm one; otherwise the name or path of a program of this machine, such as
                ``bash`` or ``node``, which gets the path of a file with the text as its argument.
            limits: instead of the sandbox's own.

        Raises:
            InputError: a file's path leads outside the folder, or the interpreter does not exist.
        """
        return self._run(Job(program, stdin, files or {}, interpreter, limits))

    def run_tests(
        self,
        code: str,
        tests: str,
        *,
        entry_point: str | None = None,
        prelude: str = "",
        files: Mapping[str, str | bytes] | None = None,
        limits: Limits | None = None,
    ) -> TestResult:
        """Whether ``code`` passes ``tests``, which run in another process than the code and see copies of its values.

        Args:
            code: what a model wrote.
            tests: Python statements that raise if the code is wrong. They see the code's names of the top level.
            entry_point: the function under test. Only for it may the code take the name of a built-in function, such as
                ``sum``: others would replace what the tests themselves use.
            prelude: trusted code that runs before the tests, beside them. Its names come before the code's, except
                ``entry_point``. Give the helper functions of the task's statement here.
            files: further files in the code's folder.
            limits: instead of the sandbox's own.
        """
        return self._run_tests(TestJob(code, tests, entry_point, prelude, files or {}, limits))

    def map(self, jobs: Iterable[Job | TestJob]) -> Iterator[Result | TestResult]:
        """Run jobs on all workers; yields their results in the jobs' order."""
        with ThreadPoolExecutor(len(self._all), thread_name_prefix="sandbox") as pool:
            yield from pool.map(lambda job: self._run(job) if isinstance(job, Job) else self._run_tests(job), jobs)

    def _run(self, job: Job) -> Result:
        report = self._execute(
            {"program": job.program, "interpreter": _command(job.interpreter), "stdin": job.stdin, "tests": False},
            None,
            job,
        )
        report.pop("verdict", None)
        return Result(**report)

    def _run_tests(self, job: TestJob) -> TestResult:
        report = self._execute(
            {"program": job.code, "interpreter": None, "stdin": "", "tests": True},
            {"tests": job.tests, "prelude": job.prelude, "entry_point": job.entry_point},
            job,
        )
        word, _, reason = report["verdict"].partition(" ")
        passed = report["status"] == "ok" and word == "passed"
        if not passed and not reason:
            reason = {
                "ok": "the tests ended without a verdict",
                "error": "the tests' process was ended",
                "lost": report["stderr"].strip(),
            }.get(report["status"], f"the code reached its limit of {report['status']}")
        return TestResult(passed=passed, reason="passed" if passed else reason, seconds=report["seconds"])

    def _execute(self, job: dict[str, Any], tests: dict[str, Any] | None, asked: Job | TestJob) -> dict[str, Any]:
        job["files"] = {_checked(name): _encoded(content) for name, content in asked.files.items()}
        job["limits"] = asdict(asked.limits or self.limits)
        return self.execute(job, tests)

    def execute(self, job: dict[str, Any], tests: dict[str, Any] | None) -> dict[str, Any]:
        """Run a job as it crosses to a worker or a remote sandbox, on the next free worker; returns its report."""
        worker = self._free.get()
        try:
            return worker.execute(job, tests)
        finally:
            self._free.put(worker)

    def close(self) -> None:
        """End all workers. No run may be going on."""
        for worker in self._all:
            worker.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _checked(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise InputError(
            f"the file name {name!r} leads outside the program's folder", "Give a relative path without .."
        )
    return str(path)


def _encoded(content: str | bytes) -> str:
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    return base64.b64encode(raw).decode("ascii")


def _command(interpreter: str) -> list[str] | None:
    if interpreter == "python":
        return None
    found = shutil.which(interpreter)
    if found is None:
        raise InputError(f"the interpreter {interpreter!r} does not exist", "Install it, or give its path")
    return [str(Path(found).absolute())]


def open_sandbox(
    isolation: str = "auto",
    *,
    limits: Limits | None = None,
    workers: int | None = None,
    key: str | None = None,
    python: str | None = None,
    readable: Sequence[str | Path] = (),
    packages: Sequence[str | Path] = (),
    image: str | None = None,
) -> Sandbox:
    """Open a sandbox. Use it as a context manager, or call ``close``.

    Args:
        isolation: ``auto`` takes the first that works here of ``namespaces``, ``bubblewrap``, ``nsjail``,
            ``systemd-run``, ``podman`` and ``docker``; each can be named. ``http://HOST:PORT`` is a machine on which
            ``herdlm sandbox serve`` runs. ``none-run-untrusted-code-unprotected`` does what it says.
        limits: of runs that give none.
        workers: runs at the same time; by default one for each processor.
        key: of a remote sandbox.
        python: the interpreter of Python programs; by default the one that runs this.
        readable: further files and folders that programs may read.
        packages: folders from which Python programs may import, such as a ``site-packages``.
        image: the image of a container runtime; by default the official one of this version of Python.

    Raises:
        InputError: the isolation cannot be had; the error says how to get one.
    """
    limits = limits or Limits()
    count = workers if workers is not None else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    if count < 1:
        raise InputError(f"workers = {count} is too small", "Give 1 or more")
    if isolation.startswith(REMOTE):
        remote = RemoteWorker(isolation, key)
        remote.check()
        return Sandbox(isolation, [remote] * count, limits)
    setup = Setup(
        python=python or python_here(),
        limits=limits,
        readable=[str(Path(path).absolute()) for path in readable],
        packages=[str(Path(path).absolute()) for path in packages],
        image=image or f"docker.io/library/python:{sys.version_info.major}.{sys.version_info.minor}-slim",
    )
    visible = setup.paths
    kind, first, start = choose(isolation, setup)
    started = [first]
    try:
        started += [start(setup) for _ in range(count - 1)]
    except BaseException:
        for worker in started:
            worker.close()
        raise
    return Sandbox(kind, started, limits, visible)
