"""What a runner does, and how one is chosen."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from herdlm.curate.config import CurateConfig

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 2
# Every worker computes on one thread, so results and memory do not depend on what else the machine does.
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}


class Runner(Protocol):
    """Runs functions over items elsewhere."""

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """The results of a module's ``function``, in the order of ``items``; few are under way or waiting at a time.

        ``str(item)`` names an item in errors. A function must bear to be run twice: where its worker dies, it is run
        once more.

        Raises:
            HerdError: what the function raised, or that its workers died.
        """


def open_runner(config: CurateConfig, shared: Path) -> AbstractContextManager[Runner]:
    """The runner that ``config`` asks for; ``shared`` is the folder that all tasks write to.

    Raises:
        InputError: the cluster cannot be reached, or does not see the folder.
    """
    if config.cluster is not None:
        from herdlm.curate.runner.cluster import RayRunner

        return RayRunner(config.cluster, shared)
    from herdlm.curate.runner.processes import ProcessRunner

    return ProcessRunner(config.workers)


def told(error: BaseException, trace: str) -> dict[str, Any]:
    """An error as it travels between processes: of ours what it says, of others their traceback."""
    from herdlm.base.errors import HerdError

    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = f"no space left on the disk: {error}"
        return {
            "what": what,
            "remedy": "Free space and run again: finished shards are kept",
            "input": True,
            "trace": trace,
        }
    if isinstance(error, HerdError):
        return {"what": error.what, "remedy": error.remedy, "input": error.exit_code == 2, "trace": trace}
    return {"what": f"{type(error).__name__}: {error}", "remedy": "", "input": False, "trace": trace}


def raised(told: dict[str, Any], item: object) -> Exception:
    """The error that was :func:`told`, to be raised here."""
    from herdlm.base.errors import HerdError, InputError

    if told["input"]:
        return InputError(told["what"], told["remedy"])
    error = HerdError(f"{item} failed: {told['what']}", told["remedy"] or "Run again; finished shards are kept")
    error.add_note(told["trace"])
    return error
