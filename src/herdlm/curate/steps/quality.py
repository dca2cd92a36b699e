"""Says how good a text is, by a trained grader or by countable properties; drops nothing, :mod:`cut` does."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.grade.grader import CountableGrader, Grader, Scores


def run(batch: Batch, config: CurateConfig) -> Outcome:
    """Set ``quality`` in [0, 1]."""
    scores = _grader(config.quality.model).score(batch["text"], batch["language"])
    return Outcome([None] * len(scores), {"quality": scores.tolist()})


def check(config: CurateConfig) -> None:
    """Load the grader; InputError where it is missing."""
    _grader(config.quality.model)


@lru_cache(maxsize=1)
def _grader(model: str) -> Scores:
    return Grader.load(Path(model)) if model else CountableGrader()
