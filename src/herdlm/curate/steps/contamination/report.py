"""Reports which examples of each benchmark a corpus holds: counted by shard, and added up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from herdlm.base.errors import DamagedError
from herdlm.base.progress import Progress
from herdlm.curate.rows import read_corpus
from herdlm.curate.steps.contamination.benchmarks import Contamination, Hits

SHOWN_DOCUMENTS = 5  # ids per contaminated example


class ContaminationCounts:
    """Counts over the documents of one or many shards."""

    def __init__(self, contamination: Contamination) -> None:
        self.contamination = contamination
        self.documents = 0
        self._found = {b.name: np.zeros(len(b.keys), bool) for b in contamination.benchmarks}
        self._touched = {b.name: 0 for b in contamination.benchmarks}
        self._leaked = {b.name: 0 for b in contamination.benchmarks}
        self._where: dict[str, dict[int, list[str]]] = {b.name: {} for b in contamination.benchmarks}

    def add(self, id_: str, hits: Mapping[str, Hits]) -> None:
        """Count a document with its hits, if any."""
        self.documents += 1
        for benchmark in self.contamination.benchmarks:
            if (hit := hits.get(benchmark.name)) is None:
                continue
            self._found[benchmark.name][hit.ngrams] = True
            self._touched[benchmark.name] += 1
            leaked = hit.examples[hit.overlaps >= benchmark.config.min_overlap].tolist()
            self._leaked[benchmark.name] += bool(leaked)
            for example in leaked:
                self._show(benchmark.name, example, [id_])

    def _show(self, name: str, example: int, ids: list[str]) -> None:
        shown = self._where[name].setdefault(example, [])
        shown.extend(ids[: SHOWN_DOCUMENTS - len(shown)])

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON-serializable values."""
        return {
            "documents": self.documents,
            "found": {name: np.flatnonzero(found).tolist() for name, found in self._found.items()},
            "touched": self._touched,
            "leaked": self._leaked,
            "where": {name: [[e, ids] for e, ids in where.items()] for name, where in self._where.items()},
        }

    def merge(self, counts: Mapping[str, Any]) -> None:
        """Add the counts of a later shard, as its :meth:`as_json` returned them.

        Raises:
            DamagedError: They are of other benchmarks.
        """
        if counts["found"].keys() != self._found.keys():
            raise DamagedError("a shard's contamination counts are of other benchmarks", "Curate it again")
        self.documents += counts["documents"]
        for name, found in self._found.items():
            found[np.array(counts["found"][name], np.int64)] = True
            self._touched[name] += counts["touched"][name]
            self._leaked[name] += counts["leaked"][name]
            for example, ids in counts["where"][name]:
                self._show(name, example, ids)

    def report(self) -> dict[str, Any]:
        """Return for each benchmark its examples, the contaminated ones, and the documents that hold one.

        An example's ``overlap`` is with the whole corpus, which can be more than with any one document.
        """
        return {
            "documents": self.documents,
            "benchmarks": {b.name: self._of(b.name) for b in self.contamination.benchmarks},
        }

    def _of(self, name: str) -> dict[str, Any]:
        benchmark = next(b for b in self.contamination.benchmarks if b.name == name)
        examples, overlaps = benchmark.overlap(np.flatnonzero(self._found[name]))
        contaminated = overlaps >= benchmark.config.min_overlap
        return {
            "file": benchmark.config.path,
            "ngram_words": benchmark.config.ngram_words,
            "min_overlap": benchmark.config.min_overlap,
            "action": benchmark.config.action,
            "examples": len(benchmark),
            "examples_judged": int(benchmark.judged.sum()),
            "examples_contaminated": int(contaminated.sum()),
            "documents_with_a_common_ngram": self._touched[name],
            "documents_with_an_example": self._leaked[name],
            "contaminated": [
                {"example": example, "overlap": round(overlap, 4), "documents": self._where[name].get(example, [])}
                for example, overlap in zip(
                    examples[contaminated].tolist(), overlaps[contaminated].tolist(), strict=True
                )
            ],
        }


def scan(corpus: Path, contamination: Contamination, *, quiet: bool = False) -> ContaminationCounts:
    """Count what a whole corpus holds.

    Raises:
        InputError: There is no such corpus.
    """
    counts = ContaminationCounts(contamination)
    with Progress("contamination", None, "documents", quiet=quiet) as progress:
        for row in read_corpus(corpus):
            counts.add(row["id"], contamination.hits(row["text"]))
            progress.advance()
    return counts


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the report as lines of text."""
    lines = [
        f"{report['documents']:,} documents",
        "",
        f"{'benchmark':20}{'examples':>10}{'judged':>8}{'leaked':>8}{'documents':>11}  action",
    ]
    for name, row in report["benchmarks"].items():
        counts = f"{row['examples']:10}{row['examples_judged']:8}{row['examples_contaminated']:8}"
        lines.append(f"{name:20}{counts}{row['documents_with_an_example']:11}  {row['action']}")
    return lines
