"""Takes lines that repeat themselves, such as logs, out of texts that are otherwise running text."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.steps.heuristics import remove_repetitive_lines


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Remove them. A page full of them did not pass the rules before this step, so something is always left."""
    texts = [
        remove_repetitive_lines(text, language, config.heuristics) or text
        for text, language in zip(batch["text"], batch["language"], strict=True)
    ]
    return Outcome([None] * len(texts), {"text": texts})
