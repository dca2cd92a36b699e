"""Chooses the runner: processes on this machine, or a Ray cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from herdlm.curate.config import CurateConfig
from herdlm.curate.runner.cluster import RayRunner
from herdlm.curate.runner.interface import Runner
from herdlm.curate.runner.processes import ProcessRunner


def open_runner(config: CurateConfig, shared: Path) -> AbstractContextManager[Runner]:
    """Return the runner that ``config`` asks for; ``shared`` is the folder that all tasks write to.

    Raises:
        InputError: The cluster cannot be reached, or does not see the folder.
    """
    if config.cluster is not None:
        return RayRunner(config.cluster, shared)
    return ProcessRunner(config.workers)
