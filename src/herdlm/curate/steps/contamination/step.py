"""The step: compares each document with the benchmarks, and counts it for the report."""

from __future__ import annotations

from functools import cached_property

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.corpus import Corpus
from herdlm.curate.step import DocumentStep
from herdlm.curate.steps.contamination.benchmarks import Contamination, ContaminationConfig
from herdlm.curate.steps.contamination.report import ContaminationCounts


class DropContaminated(DocumentStep):
    """Sets ``contaminated`` to the names of the benchmarks whose examples a document holds, and may drop it."""

    name = "contamination"
    settings: ContaminationConfig

    def check(self) -> None:
        Contamination.load(self.settings.benchmarks)

    @cached_property
    def counts(self) -> ContaminationCounts:
        """The benchmarks, and the counts over all batches so far."""
        return ContaminationCounts(Contamination.load(self.settings.benchmarks))

    def run(self, batch: Batch, corpus: Corpus) -> Outcome:
        if not self.settings.benchmarks:
            return Outcome([None] * len(batch["id"]), {"contaminated": [[] for _ in batch["id"]]})
        reasons, names = [], []
        for id_, text in zip(batch["id"], batch["text"], strict=True):
            hits = self.counts.contamination.hits(text)
            self.counts.add(id_, hits)
            leaked, reason = self.counts.contamination.check(hits)
            reasons.append(reason)
            names.append(leaked)
        return Outcome(reasons, {"contaminated": names})
