"""Runs one job and watches it: starts its processes, collects their output, ends them at the first limit.

This runs in a process of its own, the first of its process namespace where there is one. It forks the program before it
reads the tests, so that no memory of the program ever contained them.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import gc
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from herdlm.sandbox.inside import candidate, confine, frames, kernel, tester

LOOK_SECONDS = 0.05  # how often memory and processor time of all processes are added up
PAGE = os.sysconf("SC_PAGESIZE")
TICKS = os.sysconf("SC_CLK_TCK")
MESSAGE_BYTES = 65536  # of a verdict
MOST_FILES = 4096
LAST_WORDS = {
    "MemoryError": "memory",
    f"OSError: [Errno {errno.ENOSPC}]": "disk",
    f"OSError: [Errno {errno.EFBIG}]": "disk",
}


class Place:
    """Where a job runs: what the isolation around this process gives.

    Attributes:
        folder: the only folder that the program may write to.
        own_pids: whether this process sees only the run's processes, and may end all that it sees.
        capabilities: whether there are capabilities to drop.
        others: processes of the program's user beside its own; None if unknown.
        users: the users that become the program's and the tests' owner; None to stay who we are.
    """

    def __init__(
        self,
        folder: str,
        *,
        own_pids: bool,
        capabilities: bool = False,
        others: int | None = None,
        users: tuple[int, int] | None = None,
    ) -> None:
        self.folder = folder
        self.own_pids = own_pids
        self.capabilities = capabilities
        self.others = others
        self.users = users


class Run:
    """The processes of one job, and what they wrote."""

    def __init__(self, job: dict[str, Any], place: Place, source: int) -> None:
        self.job, self.place, self.source = job, place, source
        self.limits: dict[str, Any] = job["limits"]
        self.begin = time.monotonic()
        self.outputs: dict[int, bytearray] = {}
        self.written = 0
        self.status = ""
        self.cpu = 0.0
        self.stdin: tuple[int, int] | None = None

    def fork(self, body: Callable[[], None], out: int, err: int, *, keep: tuple[int, ...] = (), tests: bool) -> int:
        """Start a process that runs ``body`` in confinement; ``out`` and ``err`` become its standard outputs."""
        if process := os.fork():
            return process
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            stdin = self.stdin[0] if self.stdin and not tests else null
            for descriptor, number in ((stdin, 0), (out, 1), (err, 2)):
                os.dup2(descriptor, number)
            confine.close_others(keep)
            os.umask(0o077)
            confine.set_environment(self.place.folder)
            with contextlib.suppress(OSError):  # without /proc; where memory runs out, this one goes first
                Path("/proc/self/oom_score_adj").write_text("1000")
            os.chdir("/" if tests else self.place.folder)
            others = None if self.place.others is None else self.place.others + (1 if self.job["tests"] else 0)
            confine.set_limits(self.limits, others, self.job["interpreter"] is None)
            if self.place.capabilities:
                kernel.drop_bounding_set()
            if self.place.users:
                confine.become(self.place.users[1 if tests else 0])
            # Of this process's memory, the tests' must stay closed to the program, which may have the same user.
            kernel.prctl(kernel.PR_SET_DUMPABLE, 0 if tests else 1)
            confine.reset_signals(self.job["interpreter"] is None)
            confine.restrict(self.place.capabilities)
            gc.enable()
            body()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "backslashreplace"))
        finally:
            os._exit(1)

    def start_program(self) -> int:
        """Start a program that runs by itself; returns its process."""
        interpreter = self.job["interpreter"]
        program = str(Path(self.place.folder, "main.py" if interpreter is None else "program"))
        self.write_file(program, self.job["program"].encode("utf-8", "surrogatepass"))
        out, err = os.pipe(), os.pipe()

        def body() -> None:
            if interpreter is None:
                candidate.run_script(program, self.job["program"])
            os.execv(interpreter[0], [*interpreter, program])  # noqa: S606

        self.stdin = os.pipe()
        process = self.fork(body, out[1], err[1], tests=False)
        os.close(self.stdin[0])
        self.watched(out, err)
        return process

    def start_tests(self) -> int:
        """Start the candidate's process, and then, with tests that it has never seen, theirs; returns the latter."""
        code = self.job["program"].encode("utf-8", "surrogatepass")
        self.write_file(str(Path(self.place.folder, "candidate.py")), code)
        requests, replies, out, err = os.pipe(), os.pipe(), os.pipe(), os.pipe()
        self.fork(
            lambda: candidate.serve(self.job["program"], self.place.folder, requests[0], replies[1]),
            out[1],
            err[1],
            keep=(requests[0], replies[1]),
            tests=False,
        )
        os.close(requests[0])
        os.close(replies[1])
        self.watched(out, err)
        tests = frames.read_frame(self.source)
        self.verdict = os.pipe()
        null = os.open(os.devnull, os.O_WRONLY)
        process = self.fork(
            lambda: tester.run(tests, replies[0], requests[1], self.verdict[1]),
            null,
            null,
            keep=(requests[1], replies[0], self.verdict[1]),
            tests=True,
        )
        for descriptor in (requests[1], replies[0], self.verdict[1], null):
            os.close(descriptor)
        return process

    def watched(self, *pipes: tuple[int, int]) -> None:
        for read, write in pipes:
            os.close(write)
            os.set_blocking(read, False)
            self.outputs[read] = bytearray()

    def write_file(self, path: str, content: bytes) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        if self.place.users:
            os.chown(path, self.place.users[0], self.place.users[0])

    def write_files(self) -> None:
        for name, content in self.job["files"].items():
            self.write_file(str(Path(self.place.folder, name)), base64.b64decode(content))
            if self.place.users:
                for parent in Path(name).parents[:-1]:
                    os.chown(Path(self.place.folder, parent), self.place.users[0], self.place.users[0])

    def watch(self, process: int) -> int:
        """Wait until ``process`` ends or a limit is reached; returns its wait status."""
        ended = os.pidfd_open(process)
        self.poll = select.poll()
        self.poll.register(ended, select.POLLIN)
        self.poll.register(self.source, 0)  # only the end: the one who gave the job is gone
        for read in self.outputs:
            self.poll.register(read, select.POLLIN)
        self.text = memoryview(self.job["stdin"].encode("utf-8", "surrogatepass"))
        if self.stdin:
            os.set_blocking(self.stdin[1], False)
            self.poll.register(self.stdin[1], select.POLLOUT)
        deadline = self.begin + self.limits["wall_seconds"]
        look = self.begin + LOOK_SECONDS
        done = False
        while not (done or self.status):
            now = time.monotonic()
            if now >= deadline:
                self.status = "timeout"
            elif now >= look:
                self.add_up()
                look = time.monotonic() + LOOK_SECONDS
            else:
                events = self.poll.poll(max(1, 1000 * (min(deadline, look) - now)))
                for descriptor, event in events:
                    done |= self.handle(descriptor, event, ended)
        self.seconds = time.monotonic() - self.begin
        if self.status:
            os.kill(process, signal.SIGKILL)
        _, status, usage = os.wait4(process, 0)
        self.cpu = max(self.cpu, usage.ru_utime + usage.ru_stime)
        self.end_all()
        for read in self.outputs:
            while self.collect(read, final=True):
                pass
        return status

    def handle(self, descriptor: int, event: int, ended: int) -> bool:
        """Do what an event asks for; returns whether the process has ended."""
        if descriptor == self.source:
            os._exit(1)
        if self.stdin and descriptor == self.stdin[1]:
            self.text = self.text[self.feed(descriptor, self.text) :]
            if not self.text or event & (select.POLLERR | select.POLLHUP):
                self.poll.unregister(descriptor)
                os.close(descriptor)
        elif descriptor != ended and not self.collect(descriptor):
            self.poll.unregister(descriptor)
        return descriptor == ended

    def feed(self, descriptor: int, text: memoryview) -> int:
        try:
            return os.write(descriptor, text[:65536]) if text else 0
        except BrokenPipeError:
            return len(text)
        except BlockingIOError:
            return 0

    def collect(self, descriptor: int, final: bool = False) -> bool:
        """Take what a pipe holds; returns whether there can be more."""
        try:
            part = os.read(descriptor, 65536)
        except BlockingIOError:
            return not final
        room = self.limits["output_bytes"] - self.written
        self.outputs[descriptor] += part[: max(0, room)]
        self.written += len(part)
        if self.written > self.limits["output_bytes"]:
            self.status = self.status or "output"
            return False
        return bool(part)

    def add_up(self) -> None:
        """Compare memory and processor time of all processes with the limits."""
        if not self.place.own_pids:
            return
        memory, ticks, threads, processes = 0, 0, 0, []
        try:
            names = [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]
        except OSError:
            return
        for name in names:
            try:
                fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            if name != str(os.getpid()):
                processes.append(name)
                threads += int(fields[17])
                memory += int(fields[21]) * PAGE
                ticks += int(fields[11]) + int(fields[12])
            ticks += int(fields[13]) + int(fields[14])
        self.cpu = max(self.cpu, ticks / TICKS)
        if memory > self.limits["memory_bytes"]:  # pages of a fork are in both processes: share them out
            memory = sum(proportional(name) for name in processes)
        if memory > self.limits["memory_bytes"]:
            self.status = "memory"
        elif threads > self.limits["processes"] + self.job["tests"]:  # where no rlimit says so
            self.status = "processes"
        elif self.cpu > self.limits["cpu_seconds"]:
            self.status = "cpu"
        room = os.statvfs(self.place.folder)
        if room.f_files - room.f_ffree > MOST_FILES + 1:  # where the mount does not say so
            self.status = "disk"

    def end_all(self) -> None:
        """End all processes that are left."""
        if self.place.own_pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        while True:
            for child in [] if self.place.own_pids else descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            try:
                os.wait4(-1, 0)
            except ChildProcessError:
                if self.place.own_pids or not descendants(os.getpid()):
                    return

    def outcome(self, status: int) -> dict[str, Any]:
        """What to report."""
        code = os.waitstatus_to_exitcode(status)
        texts = [bytes(text).decode("utf-8", "replace") for text in self.outputs.values()]
        found = self.status or {0: "ok", -signal.SIGXCPU: "cpu", -signal.SIGXFSZ: "disk"}.get(code, "error")
        if found == "error":  # what Python says last
            last = texts[1].rstrip().rpartition("\n")[2]
            found = next((status for words, status in LAST_WORDS.items() if last.startswith(words)), found)
        return {
            "status": found,
            "exit_code": code,
            "stdout": texts[0],
            "stderr": texts[1],
            "seconds": self.seconds,
            "cpu_seconds": self.cpu,
        }


def proportional(process: str) -> int:
    """Bytes of a process's memory, shared pages divided among those that share them."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


def descendants(process: int) -> list[int]:
    """Children of a process and theirs."""
    found: list[int] = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(child) for child in thread.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def supervise(job: dict[str, Any], place: Place, source: int) -> dict[str, Any]:
    """Run a job to its end; ``source`` is where the frame with its tests comes from."""
    run = Run(job, place, source)
    try:
        run.write_files()
        testing = bool(job["tests"])
        process = run.start_tests() if testing else run.start_program()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        return {
            "status": "disk",
            "exit_code": 1,
            "stdout": "",
            "stderr": f"{error}\n",
            "seconds": 0.0,
            "cpu_seconds": 0.0,
        }
    result = run.outcome(run.watch(process))
    if testing:
        os.set_blocking(run.verdict[0], False)
        try:
            result["verdict"] = os.read(run.verdict[0], MESSAGE_BYTES).decode("utf-8", "replace")
        except BlockingIOError:
            result["verdict"] = ""
    return result


def once(folder: str, own_pids: bool) -> NoReturn:
    """Run the one job that standard input gives, inside an isolation that another program has made."""
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a program of the same user could send it
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    if own_pids and os.getpid() != 1:  # it would end processes that are not the run's
        os.write(2, b"the isolation has no process namespace of its own\n")
        os._exit(1)
    job = frames.read_frame(source)
    result = supervise(job, Place(folder, own_pids=own_pids, capabilities=own_pids), source)
    frames.write_all(sink, frames.pack(result))
    os._exit(0)
