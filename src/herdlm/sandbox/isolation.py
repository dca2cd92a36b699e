"""Which isolation works here: each kind is tried by a run that looks for what it must not find."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from herdlm.base.errors import HerdError, InputError
from herdlm.sandbox import commands
from herdlm.sandbox.limits import Limits
from herdlm.sandbox.worker import SOURCE, Command, Setup, Worker, Zygote

UNPROTECTED = "none-run-untrusted-code-unprotected"
REMOTE = ("http://", "https://")
HOW = (
    "On Linux, allow user namespaces (sysctl -w user.max_user_namespaces=10000; on Debian also "
    "kernel.unprivileged_userns_clone=1, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0), or install "
    "bubblewrap or nsjail, or start Docker or Podman with an image of Python. Elsewhere, run `herdlm sandbox serve` on "
    f"such a machine and give its address as isolation. Only isolation = {UNPROTECTED!r} runs programs without any"
)

Start = Callable[[Setup], Worker]


def _command(line: Callable[[Setup, Limits], Sequence[str]]) -> Start:
    return lambda setup: Command(setup, functools.partial(line, setup), commands.INSIDE, setup.python)


def _container(program: str) -> Start:
    line = functools.partial(commands.container, program)
    return lambda setup: Command(setup, functools.partial(line, setup), commands.INSIDE, "python3")


def _unprotected(setup: Setup) -> Worker:
    return Command(setup, lambda limits: (), SOURCE, setup.python, folder=None, own_pids=False)


# In the order in which they are tried: the fastest first. Each with the program that it needs.
KINDS: dict[str, tuple[str, Start]] = {
    "namespaces": ("", Zygote),
    "bubblewrap": ("bwrap", _command(commands.bubblewrap)),
    "nsjail": ("nsjail", _command(commands.nsjail)),
    "systemd-run": ("systemd-run", _command(commands.systemd_run)),
    "podman": ("podman", _container("podman")),
    "docker": ("docker", _container("docker")),
}

# Prints what it reached of the machine, as a list.
PROBE = """
import json, os, socket, subprocess, sys
canary, folder, port, process, started = json.loads(sys.stdin.read())
found = []
try:
    open(canary).close()
    found.append("a file of this machine")
except OSError:
    pass
try:
    open(os.path.join(folder, "out"), "w").close()
    found.append("a folder of this machine, to write to")
except OSError:
    pass
try:
    socket.create_connection(("127.0.0.1", port), 1).close()
    found.append("the network")
except OSError:
    pass
try:
    with open(f"/proc/{process}/stat") as file:
        if file.read().rpartition(")")[2].split()[19] == started:
            found.append("the processes of this machine")
except OSError:
    pass
with open("own", "w") as file:
    file.write("x")
if os.fork() == 0:
    os._exit(0)
os.wait()
print(json.dumps(found))
"""


def probe(worker: Worker, setup: Setup) -> str:
    """Run a program that looks around; returns "" if the isolation holds and works, and otherwise what is wrong."""
    with tempfile.TemporaryDirectory(prefix="herdlm-probe-") as folder, socket.socket() as listener:
        canary = Path(folder, "canary")
        canary.write_text("canary")
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        stat = Path("/proc/self/stat")
        started = stat.read_text().rpartition(")")[2].split()[19] if stat.exists() else ""
        question = [str(canary), folder, listener.getsockname()[1], os.getpid(), started]
        job = {
            "program": PROBE,
            "interpreter": None,
            "stdin": json.dumps(question),
            "files": {},
            "limits": asdict(setup.limits),
            "tests": False,
        }
        report = worker.execute(job, None)
    if report["status"] != "ok":
        said = report["stderr"].strip().rpartition("\n")[2]
        return f"a first run ended with {report['status']}{f': {said}' if said else ''}"
    found = json.loads(report["stdout"])
    return f"a first run reached {', '.join(found)}" if found else ""


def attempt(kind: str, setup: Setup) -> tuple[Worker | None, str]:
    """A worker of a kind of isolation if it works here, and otherwise why it does not."""
    program, start = KINDS[kind]
    if not sys.platform.startswith("linux") and kind not in ("podman", "docker"):
        return None, "needs Linux"
    if program and shutil.which(program) is None:
        return None, f"{program} is not installed"
    try:
        worker = start(setup)
    except (HerdError, OSError) as error:
        return None, str(error)
    try:
        problem = probe(worker, setup)
    except BaseException:
        worker.close()
        raise
    if problem:
        worker.close()
        return None, problem
    return worker, ""


def choose(isolation: str, setup: Setup) -> tuple[str, Worker, Start]:
    """The kind of isolation to use, its first worker, and the function that starts more.

    Raises:
        InputError: the isolation is unknown, or it, or with ``auto`` each, does not work here.
    """
    if isolation == UNPROTECTED:
        return isolation, _unprotected(setup), _unprotected
    if isolation not in ("auto", *KINDS):
        known = ", ".join(("auto", *KINDS, "http://HOST:PORT"))
        raise InputError(f"isolation = {isolation!r} is none", f"Give one of {known}")
    problems = []
    for kind in KINDS if isolation == "auto" else (isolation,):
        worker, problem = attempt(kind, setup)
        if worker is not None:
            return kind, worker, KINDS[kind][1]
        problems.append(f"{kind}: {problem}")
    raise InputError(f"no isolation for untrusted programs can be had here ({'; '.join(problems)})", HOW)
