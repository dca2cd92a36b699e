"""Says how much a text reads like careful prose; drops nothing."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.quality import quality


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Set ``quality`` in [0, 1]."""
    texts = zip(batch["text"], batch["language"], strict=True)
    scores = [quality(text, language) for text, language in texts]
    return Outcome([None] * len(scores), {"quality": scores})
