"""Finds out the language of a text and drops those not asked for."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.steps.language import check_language, identify


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Set ``language`` (ISO 639) and ``language_score`` in [0, 1]."""
    found = [identify(text) for text in batch["text"]]
    reasons = [check_language(code, score, config) for code, score in found]
    return Outcome(reasons, {"language": [code for code, _ in found], "language_score": [score for _, score in found]})
