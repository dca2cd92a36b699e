"""Counts a text's dirty words; drops nothing."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.steps.dirty_words import dirty_words


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Set ``dirty_words``."""
    texts = zip(batch["text"], batch["language"], batch["split"], strict=True)
    counts = [dirty_words(text, language, words) for text, language, words in texts]
    return Outcome([None] * len(counts), {"dirty_words": counts})
