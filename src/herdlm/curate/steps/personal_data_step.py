"""Masks personal data and secrets, and drops pages that are mostly such."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.steps.pii import mask_pii


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Set ``text``, and ``pii`` to the number of pieces found."""
    found = [mask_pii(text, config.pii) for text in batch["text"]]
    columns: Batch = {"text": [text for text, _, _ in found], "pii": [sum(counts.values()) for _, counts, _ in found]}
    return Outcome([reason for _, _, reason in found], columns)
