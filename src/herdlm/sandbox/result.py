"""What a run gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "error", "timeout", "cpu", "memory", "processes", "output", "disk", "lost"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A program's end.

    Attributes:
        status: what ended it. ``ok``: it exited with 0; ``error``: with another code, or by a signal; ``lost``: the
            run's own supervisor ended without a report; otherwise the limit that it reached.
        exit_code: as in :mod:`subprocess`, negative for a signal.
        stdout: standard output, decoded from UTF-8; what is no UTF-8 becomes U+FFFD.
        stderr: standard error, likewise.
        seconds: wall time.
        cpu_seconds: processor time, as far as it was seen.
    """

    status: Status
    exit_code: int
    stdout: str
    stderr: str
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """A verdict of tests.

    Attributes:
        passed: whether the tests ran to their end without an exception.
        reason: ``passed``, or in one line why not.
        seconds: wall time.
    """

    __test__ = False  # not a class of tests for pytest

    passed: bool
    reason: str
    seconds: float
