"""Drops what could not be read: damaged, cut off, too large, or no page at all."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Drop pages by the fault that their reader found."""
    return Outcome(batch["fault"])
