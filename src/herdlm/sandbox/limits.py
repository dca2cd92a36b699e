"""What one run may use."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from herdlm.base.errors import InputError

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What all processes of a run may use together, except where a field says otherwise.

    Attributes:
        cpu_seconds: processor time.
        wall_seconds: time from start to end.
        memory_bytes: address space of each Python process, and memory of all processes together.
        processes: processes and threads that exist at the same time.
        open_files: file descriptors of each process.
        output_bytes: standard output and standard error.
        disk_bytes: files in the run's folder, which lie in memory.
    """

    cpu_seconds: float = 10.0
    wall_seconds: float = 15.0
    memory_bytes: int = 512 * MIB
    processes: int = 16
    open_files: int = 64
    output_bytes: int = MIB
    disk_bytes: int = 64 * MIB

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = LEAST[name]
            whole = name not in ("cpu_seconds", "wall_seconds")
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise InputError(f"{name} = {value!r} is not a number", "Give a whole number" if whole else "Give one")
            if not (math.isfinite(value) and value >= least):
                raise InputError(f"{name} = {value} is too small or not finite", f"Give {least} or more")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Limits:
        """The limits that :func:`dataclasses.asdict` wrote; unknown names are refused."""
        if unknown := sorted(set(values) - set(LEAST)):
            raise InputError(f"{unknown[0]} is not a limit", f"Limits are {', '.join(LEAST)}")
        return cls(**values)


# Below these not even the interpreter starts.
LEAST = {
    "cpu_seconds": 0.1,
    "wall_seconds": 0.1,
    "memory_bytes": 64 * MIB,
    "processes": 1,
    "open_files": 16,
    "output_bytes": 1,
    "disk_bytes": 65536,
}
