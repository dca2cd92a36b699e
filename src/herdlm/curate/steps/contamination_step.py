"""Flags documents that hold examples of benchmarks, or drops them."""

from __future__ import annotations

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.corpus import Corpus
from herdlm.curate.steps.contamination.benchmarks import Contamination


def run(batch: Batch, config: CurateConfig, corpus: Corpus) -> Outcome:
    """Set ``contaminated``, the names of benchmarks."""
    if not config.contamination.benchmarks:
        return Outcome([None] * len(batch["id"]), {"contaminated": [[] for _ in batch["id"]]})
    counts = corpus.contamination
    reasons, names = [], []
    for id_, text in zip(batch["id"], batch["text"], strict=True):
        hits = counts.contamination.hits(text)
        counts.add(id_, hits)
        leaked, reason = counts.contamination.check(hits)
        reasons.append(reason)
        names.append(leaked)
    return Outcome(reasons, {"contaminated": names})


def check(config: CurateConfig) -> None:
    """Read the benchmarks; InputError where one is missing or unusable."""
    Contamination.load(config.contamination.benchmarks)
