"""Runs the attack set against a sandbox, and looks at this machine for what an attack did to it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from herdlm.sandbox.attacks import ATTACKS, LIMITS, TOOLS, Attack
from herdlm.sandbox.sandbox import Sandbox

ENVIRONMENT = "HERDLM_SANDBOX_CANARY"
SETTINGS = ("/etc/passwd", "/etc/shadow", "/etc/hosts", "/etc/hostname", "/etc/machine-id")
COMM_CHARACTERS = 15  # of a process's name, in the kernel


# Prints what a program sees of its surroundings.
LOOK = """
import ctypes, json, os, struct
libc = ctypes.CDLL(None)
capabilities = ctypes.create_string_buffer(24)
libc.capget(struct.pack("Ii", 0x20080522, 0), capabilities)
privileges, filtered = libc.prctl(39, 0, 0, 0, 0) == 1, libc.prctl(21) == 2
found = [sorted(os.listdir("/")), os.getuid(), os.path.isdir("/proc/self"), any(capabilities.raw), privileges, filtered]
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Outcome:
    """What an attack achieved: ``escaped`` is empty if nothing."""

    attack: Attack
    status: str
    escaped: str


class Scene:
    """What attacks aim at: a file, a folder, listeners, a process, a variable, all with the same random token."""

    def __init__(self, stack: ExitStack) -> None:
        self.token = "attack" + secrets.token_hex(4)
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="herdlm-attacked-")))
        self.canary = self.folder / "canary"
        self.canary.write_text(self.token)
        self.reached: list[str] = []
        listeners = {name: stack.enter_context(listener) for name, listener in self._listeners().items()}
        stop = threading.Event()
        watchers = [threading.Thread(target=self._watch, args=(name, each, stop)) for name, each in listeners.items()]
        for thread in watchers:
            thread.start()
        for thread in watchers:
            stack.callback(thread.join)
        stack.callback(stop.set)
        # The token in its command line is what nobody inside may read.
        code = "import sys; print(flush=True); sys.stdin.read()"
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", code, self.token],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None and self.process.stdin is not None
        stack.callback(self.process.wait)
        stack.callback(self.process.stdout.close)
        stack.callback(self.process.stdin.close)
        self.process.stdout.readline()
        ports = {name: each.getsockname()[1] for name, each in listeners.items() if name in ("tcp", "udp", "tcp6")}
        self.facts: dict[str, Any] = {
            "token": self.token,
            "folder": str(self.folder),
            "canary": str(self.canary),
            "home": str(Path.home()),
            "process": self.process.pid,
            "unix": str(self.folder / "socket"),
            "tcp6": 1,
            "settings": {path: digest for path in SETTINGS if (digest := first_bytes(path))},
            **ports,
        }

    def _listeners(self) -> dict[str, socket.socket]:
        made: dict[str, tuple[int, int, Any]] = {
            "tcp": (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            "udp": (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            "tcp6": (socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)),
            "unix": (socket.AF_UNIX, socket.SOCK_STREAM, str(self.folder / "socket")),
            "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, "\0" + self.token),
        }
        listeners = {}
        for name, (family, kind, address) in made.items():
            listener = socket.socket(family, kind)
            try:
                listener.bind(address)
            except OSError:  # a machine without IPv6
                listener.close()
                continue
            if kind == socket.SOCK_STREAM:
                listener.listen()
            listener.settimeout(0.1)
            listeners[name] = listener
        return listeners

    def _watch(self, name: str, listener: socket.socket, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                if listener.type == socket.SOCK_STREAM:
                    listener.accept()[0].close()
                else:
                    listener.recv(100)
            except TimeoutError:
                continue
            self.reached.append(name)

    def damage(self) -> str:
        """What has been done to the scene; "" if nothing."""
        if self.canary.read_text() != self.token:
            return "changed a file"
        if extra := {path.name for path in self.folder.iterdir()} - {"canary", "socket"}:
            return f"wrote {sorted(extra)[0]} on this machine"
        if self.reached:
            return f"reached the listener {self.reached[0]}"
        if self.process.poll() is not None:
            return "ended a process of this machine"
        if survivors := named(self.token):
            return f"left process {survivors[0]}"
        return ""


def first_bytes(path: str) -> str:
    """A hash of the first 1,000 bytes of a file, as many as an attack reads; "" if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.sha256(file.read(1000)).hexdigest()
    except OSError:
        return ""


def named(token: str) -> list[int]:
    """Processes of this machine that have given themselves the name ``token``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == token[:COMM_CHARACTERS]:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@contextmanager
def scene() -> Iterator[Scene]:
    """A scene, with its token in this process's environment; open the sandbox inside it."""
    with ExitStack() as stack:
        made = Scene(stack)
        before = os.environ.get(ENVIRONMENT)
        os.environ[ENVIRONMENT] = made.token
        try:
            yield made
        finally:
            if before is None:
                del os.environ[ENVIRONMENT]
            else:
                os.environ[ENVIRONMENT] = before


def run_attack(sandbox: Sandbox, attack: Attack, scene: Scene) -> Outcome:
    """Run one attack; ``sandbox`` has one worker, so that a program after it runs on the same."""
    if attack.tests:
        verdict = sandbox.run_tests(attack.program, attack.tests, limits=LIMITS)
        return Outcome(attack, "passed" if verdict.passed else "failed", "passed the tests" if verdict.passed else "")
    home = Path(scene.facts["home"])
    shown = [Path(path).relative_to(home).parts[0] for path in sandbox.visible if Path(path).is_relative_to(home)]
    begin = f"SCENE = {scene.facts | {'shown': shown}!r}\n{TOOLS}"
    first = sandbox.run(begin + attack.program, limits=LIMITS)
    results = [first]
    if attack.after:
        results.append(sandbox.run(begin + attack.after, limits=LIMITS))
    said = [line for result in results for line in result.stdout.splitlines() if line.startswith("OUT:")]
    escaped = said[0].removeprefix("OUT:").strip() if said else ""
    if not escaped and len(first.stdout) + len(first.stderr) > LIMITS.output_bytes:
        escaped = "more output than allowed"
    if not escaped and first.status == "lost" and "no answer" in first.stderr:
        escaped = "hung"
    if not escaped and attack.ends and first.status not in attack.ends:
        escaped = f"ended with {first.status}, not {' or '.join(attack.ends)}: {first.stderr[-200:]}"
    if not escaped and attack.after and results[1].status != "ok":
        escaped = f"the program after it ended with {results[1].status}: {results[1].stderr[-200:]}"
    return Outcome(attack, first.status, escaped or scene.damage())


def run_attacks(sandbox: Sandbox, scene: Scene, attacks: Sequence[Attack] = ATTACKS) -> Iterator[Outcome]:
    """The outcomes of all attacks, one after the other."""
    for attack in attacks:
        yield run_attack(sandbox, attack, scene)


def layers(sandbox: Sandbox) -> dict[str, str]:
    """What each layer of protection gives, as a program inside sees it."""
    result = sandbox.run(LOOK)
    if result.status != "ok":
        return {"a first program": f"{result.status}: {result.stderr.strip()[-200:]}"}
    root, user, proc, capabilities, no_new_privileges, filtered = json.loads(result.stdout)
    return {
        "isolation": sandbox.isolation,
        "user of programs": str(user),
        "folders in sight": ", ".join(root),
        "processes in sight": "its own" if proc else "none, and no /proc, so that no limit holds for memory in sum",
        "capabilities": "some" if capabilities else "none",
        "no new privileges": "yes" if no_new_privileges else "no",
        "filter of system calls": "yes" if filtered else "no",
        "limits": ", ".join(f"{name} {value}" for name, value in asdict(sandbox.limits).items()),
    }
