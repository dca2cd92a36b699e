"""Drops texts that are no running text by rules of thumb."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.heuristics import check_text


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Drop texts by the first rule they break."""
    texts = zip(batch["text"], batch["language"], strict=True)
    return Outcome([check_text(text, language, config.heuristics) for text, language in texts])
