"""A control group (cgroup v2) for a worker: a hard limit on memory and processes in sum, where one can be had."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from pathlib import Path

from herdlm.sandbox.limits import MIB, Limits

MOUNT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
OVERHEAD_BYTES = 64 * MIB  # the warm interpreter and the supervisor
OVERHEAD_PROCESSES = 8
NEEDED = {"memory", "pids"}
_numbers = itertools.count()


def parents() -> list[Path]:
    """Groups below which one can be made that limits memory and processes, the nearest first.

    A group that has processes of its own can limit no groups below it, so this is often the parent of our own.
    """
    try:
        line = next(line for line in OWN.read_text(encoding="utf-8").splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    own = MOUNT / line[3:].lstrip("/")
    found = []
    for group in (own, *own.parents):
        if not group.is_relative_to(MOUNT):
            break
        try:
            controllers = set((group / "cgroup.subtree_control").read_text(encoding="utf-8").split())
        except OSError:
            continue
        if controllers >= NEEDED:
            found.append(group)
    return found


class ControlGroup:
    """One group; made by :func:`make`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._limits: Limits | None = None

    def limit(self, limits: Limits) -> None:
        """Set what all processes of the group may use. The files of a run are memory, too."""
        if limits != self._limits:
            memory = limits.memory_bytes + limits.disk_bytes + OVERHEAD_BYTES
            self._write("memory.max", memory)
            with contextlib.suppress(OSError):  # without swap there is no such file
                self._write("memory.swap.max", 0)
            self._write("pids.max", limits.processes + OVERHEAD_PROCESSES)
            self._limits = limits

    def add(self, process: int) -> None:
        """Move a process into the group; those that it starts later are in it as well."""
        self._write("cgroup.procs", process)

    def kills(self) -> int:
        """How many processes the kernel has killed for lack of memory."""
        text = (self._path / "memory.events").read_text(encoding="utf-8")
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill "))

    def remove(self) -> None:
        """Remove the group, once its processes have ended."""
        for _ in range(50):
            try:
                return self._path.rmdir()
            except FileNotFoundError:
                return None
            except OSError:
                time.sleep(0.02)
        return None

    def _write(self, name: str, value: int) -> None:
        (self._path / name).write_text(f"{value}\n", encoding="utf-8")


def make(process: int, limits: Limits) -> ControlGroup | None:
    """Put a process into a new group; None where that cannot be had."""
    for parent in parents():
        group = ControlGroup(parent / f"herdlm-sandbox-{os.getpid()}-{next(_numbers)}")
        try:
            group._path.mkdir()
        except OSError:
            continue
        try:
            group.limit(limits)
            group.kills()
            group.add(process)
        except OSError:
            group.remove()
            continue
        return group
    return None
