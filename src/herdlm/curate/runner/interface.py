"""What a runner does, and how errors travel to it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypedDict, TypeVar

from herdlm.base.errors import HerdError, InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 2
# Every worker computes on one thread, so results and memory do not depend on what else the machine does.
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}


class Runner(Protocol):
    """Runs functions over items in other processes."""

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield the results of a module-level ``function`` in the order of ``items``; few run or wait at a time.

        ``str(item)`` names an item in errors. The function must be safe to run twice: if its worker dies, it is run
        again.

        Raises:
            HerdError: The function failed, or its workers died.
        """


class Failure(TypedDict):
    """An error as it travels between processes."""

    what: str
    remedy: str
    input: bool
    trace: str


def failure(error: BaseException, trace: str) -> Failure:
    """Pack an error: the message and remedy of a HerdError, the type and message of any other."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        what, remedy = f"no space left on the disk: {error}", "Free space and run again: finished shards are kept"
        return Failure(what=what, remedy=remedy, input=True, trace=trace)
    if isinstance(error, HerdError):
        return Failure(what=error.what, remedy=error.remedy, input=error.exit_code == 2, trace=trace)
    return Failure(what=f"{type(error).__name__}: {error}", remedy="", input=False, trace=trace)


def as_error(failure: Failure, item: object) -> Exception:
    """Unpack the error of an item, to be raised here."""
    if failure["input"]:
        return InputError(failure["what"], failure["remedy"])
    remedy = failure["remedy"] or "Run again; finished shards are kept"
    error = HerdError(f"{item} failed: {failure['what']}", remedy)
    error.add_note(failure["trace"])
    return error
