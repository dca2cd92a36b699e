"""What every pass of a curation needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from herdlm.curate.config import CurateConfig
from herdlm.curate.runner.interface import Runner


@dataclass(frozen=True, slots=True)
class Job:
    """One curation: how, with which seed, where to work, on what, and whether to tell of progress."""

    config: CurateConfig
    seed: int
    work: Path
    runner: Runner
    quiet: bool
