"""The step's two halves: each page is scored on its own, and low scores are dropped once all are known."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.classify.grader import Grader
from herdlm.curate.corpus import Corpus
from herdlm.curate.step import DocumentStep, PageStep
from herdlm.curate.steps.quality.countable import quality
from herdlm.curate.steps.quality.cutoffs import QualityConfig, check_quality


class ScoreQuality(PageStep):
    """Sets ``quality`` in [0, 1]: by a trained grader, or by countable properties."""

    name, filters = "quality", False
    settings: QualityConfig

    def check(self) -> None:
        if self.settings.model:
            _grader(self.settings.model)

    def run(self, batch: Batch) -> Outcome:
        if self.settings.model:
            scores = _grader(self.settings.model).score(batch["text"], batch["language"]).tolist()
        else:
            texts = zip(batch["text"], batch["language"], batch["split"], strict=True)
            scores = [quality(text, language, words) for text, language, words in texts]
        return Outcome([None] * len(scores), {"quality": scores})


class DropLowQuality(DocumentStep):
    """Drops documents whose ``quality`` is below the cutoff of their language."""

    name = "quality"

    def run(self, batch: Batch, corpus: Corpus) -> Outcome:
        cutoffs = corpus.decisions.cutoffs
        scored = zip(batch["quality"], batch["language"], strict=True)
        return Outcome([check_quality(score, language, cutoffs) for score, language in scored])


@lru_cache(maxsize=1)
def _grader(model: str) -> Grader:
    return Grader.load(Path(model))
