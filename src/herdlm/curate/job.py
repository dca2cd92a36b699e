"""What every pass of a curation needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from herdlm.curate.config import CurateConfig
from herdlm.curate.runner.interface import Runner


@dataclass(frozen=True, slots=True)
class Job:
    """A curation: its configuration, seed, working folder and runner, and whether to show progress."""

    config: CurateConfig
    seed: int
    work: Path
    runner: Runner
    quiet: bool
