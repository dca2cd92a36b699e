"""Judges Python code by tests, which run in the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr

from herdlm.base.errors import InputError
from herdlm.verifiers.blocks import last_block
from herdlm.verifiers.reference import shown
from herdlm.verifiers.verdict import Verdict, Verifier, failed, passed

if TYPE_CHECKING:
    from herdlm.sandbox.sandbox import Sandbox


class Code(Verifier):
    """Passes an answer whose code passes all tests. The code is the last fenced block, or else the whole answer.

    The reference is Python text, a list of such texts, or an object with ``tests`` (one of these), ``entry_point`` (the
    function under test) and ``setup`` (code of the task, which stands before the answer's). Threads may share the
    verifier. The sandbox is opened at the first answer.
    """

    reference_keys: ClassVar = ("tests",)
    optional_keys: ClassVar = ("entry_point", "setup")

    isolation: str = Field("auto", description="how the sandbox isolates programs")
    key: str | None = Field(None, description="key of a sandbox on another machine", repr=False)
    workers: int = Field(1, ge=1, description="runs at the same time")
    cpu_seconds: float = Field(10.0, gt=0, allow_inf_nan=False)
    wall_seconds: float = Field(15.0, gt=0, allow_inf_nan=False)
    memory_mib: int = Field(512, ge=64)

    _sandbox: Sandbox | None = PrivateAttr(None)
    _lock: Lock = PrivateAttr(default_factory=Lock)

    @property
    def threads(self) -> int:
        """The sandbox's workers."""
        return self.workers

    def __call__(self, answer: str, reference: Any = None) -> Verdict:
        """Judge an answer; see :meth:`Verifier.__call__`."""
        tests, entry_point, setup = _reference(reference)
        block = last_block(answer)
        code = answer if block is None else block
        if not code.strip():
            return failed("no code")
        # With an entry point, tests see the setup's own helpers, whatever the answer calls by their names.
        result = self._opened().run_tests(
            f"{setup}\n{code}" if setup else code,
            tests,
            entry_point=entry_point,
            prelude=setup if setup and entry_point else "",
        )
        reason = result.reason.partition(":")[0].strip()
        return passed("passes the tests") if result.passed else failed(reason, why=result.reason)

    def _opened(self) -> Sandbox:
        from herdlm.sandbox.limits import MIB, Limits
        from herdlm.sandbox.sandbox import open_sandbox

        with self._lock:
            if self._sandbox is None:
                limits = Limits(
                    cpu_seconds=self.cpu_seconds, wall_seconds=self.wall_seconds, memory_bytes=self.memory_mib * MIB
                )
                self._sandbox = open_sandbox(self.isolation, limits=limits, workers=self.workers, key=self.key)
            return self._sandbox

    def close(self) -> None:
        """Close the sandbox. A later call opens a new one."""
        with self._lock:
            if self._sandbox is not None:
                self._sandbox.close()
                self._sandbox = None


def _reference(reference: Any) -> tuple[str, str | None, str]:
    """The tests as one text, the function under test and the setup."""
    given = reference if isinstance(reference, Mapping) else {"tests": reference}
    tests, entry_point, setup = given.get("tests"), given.get("entry_point"), given.get("setup") or ""
    listed = [tests] if isinstance(tests, str) else tests
    if not isinstance(listed, list) or not all(isinstance(test, str) for test in listed) or not "".join(listed).strip():
        raise InputError(f"reference: tests {shown(tests)} are no Python code", "Write a text, or a list of texts")
    if not isinstance(entry_point, str | None) or not isinstance(setup, str):
        raise InputError("reference: entry_point or setup is not a text", "Write texts, or leave them out")
    return "\n".join(listed), entry_point, setup
