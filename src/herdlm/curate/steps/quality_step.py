"""Says how good a text is, by a trained grader or by countable properties; drops nothing, :mod:`cut` does."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.classify.grader import Grader
from herdlm.curate.config import CurateConfig
from herdlm.curate.steps.quality.countable import quality


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Set ``quality`` in [0, 1]."""
    if config.quality.model:
        scores = _grader(config.quality.model).score(batch["text"], batch["language"]).tolist()
    else:
        texts = zip(batch["text"], batch["language"], batch["split"], strict=True)
        scores = [quality(text, language, words) for text, language, words in texts]
    return Outcome([None] * len(scores), {"quality": scores})


def check(config: CurateConfig) -> None:
    """Load the grader; InputError where it is missing."""
    if config.quality.model:
        _grader(config.quality.model)


@lru_cache(maxsize=1)
def _grader(model: str) -> Grader:
    return Grader.load(Path(model))
