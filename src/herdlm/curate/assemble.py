"""The third pass: applies what the second found, and writes each page to the documents or to the dropped ones."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from herdlm.base.artifact import write_text_durably
from herdlm.base.progress import Progress
from herdlm.base.seeds import derive_seed
from herdlm.curate import shuffle
from herdlm.curate.annotate import AnnotateTask
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.config import CurateConfig
from herdlm.curate.corpus import Corpus
from herdlm.curate.documents import DOCUMENT_SCHEMA, DROPPED_SCHEMA, FINGERPRINTS, PAGE_SCHEMA, RowWriter
from herdlm.curate.duplicates.index import open_index
from herdlm.curate.job import Job
from herdlm.curate.repeats import Repeats
from herdlm.curate.samples import order
from herdlm.curate.sources.file import SourceFile
from herdlm.curate.sources.shards import MAX_NUMBER, NUMBER_BITS
from herdlm.curate.step import Ledger, apply, run_steps, still_in
from herdlm.curate.steps.contamination.step import DropContaminated
from herdlm.curate.steps.contents import corpus_steps, document_steps

DOCUMENTS, DROPPED, ACCOUNTS = "documents", "dropped", "accounts"
DECISIONS, LINES, WORDS = "decisions.json", "lines.npy", "words.npz"
_COLUMNS = [name for name in PAGE_SCHEMA.names if name not in FINGERPRINTS or name == "lines"]


@dataclass(frozen=True, slots=True)
class AssembleTask:
    """A shard of the first pass, the results of the second, and the folder for the documents."""

    number: int
    pages: Path
    repeats: tuple[tuple[str, Path], ...]  # as repeats.Repeats
    names: Path  # JSON: the names of the source files
    decisions: Path  # JSON: corpus.Decisions
    lines: Path  # the lines that are repeated too often
    words: Path  # the corpus's word counts
    folder: Path
    config: CurateConfig
    seed: int

    def __str__(self) -> str:
        return f"part {self.number}"

    def part(self, kind: str) -> Path:
        """Return the path of the shard's documents or dropped documents."""
        return self.folder / kind / f"part-{self.number:05}.parquet"

    @property
    def account(self) -> Path:
        """The shard's counts, written last: if they exist, so do its other files."""
        return self.folder / ACCOUNTS / f"part-{self.number:05}.json"


def assemble_all(
    files: Sequence[SourceFile], tasks: Sequence[AnnotateTask], repeats: Repeats, result: Path, job: Job
) -> list[AssembleTask]:
    """Run the third pass over all shards, into the folder ``result``. Return the tasks, all finished."""
    for kind in (DOCUMENTS, ACCOUNTS, *([DROPPED] if job.config.keep_dropped != "none" else [])):
        (result / kind).mkdir(parents=True, exist_ok=True)
        for leftover in (result / kind).glob(".*"):  # of a process that was killed while it wrote
            leftover.unlink()
    names = result / "names.json"
    write_text_durably(names, json.dumps([file.name for file in files]))
    parts = [
        AssembleTask(
            task.shard.number,
            task.path,
            tuple(repeats.items()),
            names,
            result / DECISIONS,
            result / LINES,
            result / WORDS,
            result,
            job.config,
            job.seed,
        )
        for task in tasks
    ]
    to_do = [part for part in parts if not part.account.exists()]
    with Progress("assemble", len(parts), "shards", quiet=job.quiet) as progress:
        progress.restore(len(parts) - len(to_do))
        for _ in job.runner.map(assemble, to_do):
            progress.advance()
    return parts


def assemble(task: AssembleTask) -> None:
    """Write one shard's documents, dropped documents and counts."""
    ledger = Ledger(task.seed)
    config = task.config
    corpus = Corpus(task.seed, task.decisions, task.lines, task.words)
    steps = document_steps(config)
    with ExitStack() as stack:
        documents = stack.enter_context(RowWriter(task.part(DOCUMENTS), DOCUMENT_SCHEMA))
        dropped = None
        if config.keep_dropped != "none":
            dropped = stack.enter_context(RowWriter(task.part(DROPPED), DROPPED_SCHEMA))
        sample = _DroppedSample(config.dropped_sample, derive_seed(task.seed, "dropped"))
        for batch in _batches(task.pages):
            for name, path in task.repeats:
                with ledger.timed(name):
                    outcome = _repeats(batch, name, path, task)
                apply(batch, (at := still_in(batch)), at, outcome, name=name, ledger=ledger)
            run_steps(batch, steps, ledger, corpus)
            with ledger.timed("write"):
                documents.write(batch, still_in(batch))
                if dropped is not None:
                    out = [i for i, step in enumerate(batch["step"]) if step is not None]
                    if config.keep_dropped == "all":
                        dropped.write(batch, out)
                    else:
                        sample.offer(batch, out)
        if dropped is not None:
            for row in sample.drawn():
                dropped.write(row, [0])
    contamination = next(step for step in steps if isinstance(step, DropContaminated)).counts
    account = ledger.as_json() | {"contamination": contamination.as_json()}
    write_text_durably(task.account, json.dumps(account))


def _batches(path: Path) -> Iterator[Batch]:
    """Yield the pages of a file of the first pass, one row group at a time."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            batch: Batch = file.read_row_group(group, columns=_COLUMNS).to_pydict()
            nothing = [None] * len(batch["row"])
            yield batch | {"duplicate_of": nothing, "contaminated": list(nothing)}


def _repeats(batch: Batch, name: str, path: Path, task: AssembleTask) -> Outcome:
    """Return what a corpus step found for the pages that no step has dropped."""
    reason = next(step.reason for step in corpus_steps(task.config) if step.name == name)
    at = still_in(batch)
    rows, firsts = shuffle.load(path)
    found = shuffle.find(np.array([batch["row"][i] for i in at], np.int64), rows)
    reasons = [reason if place >= 0 else None for place in found.tolist()]
    ids = [_id(int(firsts[place]), task) if place >= 0 else None for place in found.tolist()]
    return Outcome(reasons, {"duplicate_of": ids})


def _id(row: int, task: AssembleTask) -> str:
    """Return the id of a page of this crawl or, for a negative row, of an earlier one."""
    if row < 0:
        index = open_index(task.config.index, task.config.near_duplicates)
        return index.ids(np.array([row]))[0]
    return f"{_names(task.names)[row >> NUMBER_BITS]}#{row & MAX_NUMBER}"


@lru_cache(maxsize=1)
def _names(path: Path) -> list[str]:
    names: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return names


@dataclass
class _DroppedSample:
    """Keeps the ``count`` pages with the lowest pseudo-random numbers of each step and reason."""

    count: int
    seed: int
    heaps: dict[tuple[str, str], list[tuple[int, int, dict[str, Any]]]] = field(default_factory=dict)

    def offer(self, batch: Batch, at: list[int]) -> None:
        for i in at:
            heap = self.heaps.setdefault((batch["step"][i], batch["reason"][i]), [])
            number, row = -order(self.seed, batch["row"][i]), batch["row"][i]
            if len(heap) < self.count:
                heapq.heappush(heap, (number, row, _row(batch, i)))
            elif number > heap[0][0]:
                heapq.heapreplace(heap, (number, row, _row(batch, i)))

    def drawn(self) -> Iterator[Batch]:
        """Yield the sampled pages in the order of rows, each as a batch of one."""
        held = [(row, page) for heap in self.heaps.values() for _, row, page in heap]
        for _, page in sorted(held, key=lambda entry: entry[0]):
            yield {name: [value] for name, value in page.items()}


def _row(batch: Batch, i: int) -> dict[str, Any]:
    return {name: values[i] for name, values in batch.items()}
