"""Drops texts whose words are far from those of the corpus in their language."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.corpus import Corpus
from herdlm.curate.steps.outliers import check_divergence


def run(batch: Batch, config: CurateConfig, corpus: Corpus) -> Outcome:
    """Drop by the divergence of a text's words from its language's."""
    known, limits = corpus.word_references, config.outliers
    texts = zip(batch["text"], batch["language"], strict=True)
    return Outcome([check_divergence(text, language, known, limits)[1] for text, language in texts])
