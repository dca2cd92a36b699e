"""Drops pages that could not be read: damaged, cut off, too large, or not a page at all."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.step import PageStep


class Read(PageStep):
    """Drops pages by the fault that their reader found."""

    name = "read"

    def run(self, batch: Batch) -> Outcome:
        return Outcome(batch["fault"])
