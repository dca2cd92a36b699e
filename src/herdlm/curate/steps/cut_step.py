"""Drops documents whose quality is below what their language's cut allows."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.corpus import Corpus
from herdlm.curate.steps.quality.cutoffs import check_quality


def run(batch: Batch, config: CurateConfig, corpus: Corpus) -> Outcome:
    """Drop by ``quality`` and ``language``."""
    cuts = corpus.decisions.cuts
    scored = zip(batch["quality"], batch["language"], strict=True)
    return Outcome([check_quality(score, language, cuts) for score, language in scored])
