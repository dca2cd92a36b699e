"""Repairs texts: wrong decodings undone, one Unicode form, nothing invisible. Drops those of which nothing is left."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.steps.repair import repair


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Set ``text``."""
    texts = [repair(text) for text in batch["text"]]
    return Outcome([None if text.strip() else "no_text" for text in texts], {"text": texts})
