"""Finds the lines that too many documents of a bucket share: line keys are scattered and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from herdlm.base.progress import Progress
from herdlm.curate import shuffle
from herdlm.curate.corpus import Decisions
from herdlm.curate.decide import remaining
from herdlm.curate.job import Job
from herdlm.curate.repeats import FILES_PER_SCATTER, Repeats
from herdlm.curate.shuffle import RECORD, as_records
from herdlm.curate.steps.repeated_lines import frequent

LINE = np.dtype([("bucket", "<i8"), ("key", "<u8")])


@dataclass(frozen=True, slots=True)
class ScatterLinesTask:
    """Scatters the lines of the remaining pages in some files of the first pass."""

    pages: tuple[Path, ...]
    dropped: tuple[Path, ...]
    partitions: int
    path: Path

    def __str__(self) -> str:
        return f"lines of {self.pages[0].name} and {len(self.pages) - 1} more"


@dataclass(frozen=True, slots=True)
class CountLinesTask:
    """Counts the lines of one partition."""

    scattered: tuple[Path, ...]
    partition: int
    buckets: tuple[int, ...]
    more_than: int
    path: Path

    def __str__(self) -> str:
        return f"lines, partition {self.partition}"


def scatter_lines(task: ScatterLinesTask) -> None:
    """Scatter the keys of lines, each with the row of its document."""
    pieces = [np.empty(0, RECORD)]
    for path in task.pages:
        table = remaining(path, task.dropped, ["lines"])
        lines = table["lines"].combine_chunks()
        counts = lines.value_lengths().to_numpy(zero_copy_only=False)
        pieces.append(as_records(lines.flatten().to_numpy(), np.repeat(table["row"].to_numpy(), counts), RECORD))
    shuffle.scatter(np.concatenate(pieces), task.partitions, task.path)


def count_lines(task: CountLinesTask) -> None:
    """Find the keys that are frequent in each bucket."""
    records = shuffle.gather(task.scattered, task.partition)
    bucket = np.searchsorted(task.buckets, records["row"], side="right") - 1
    pieces = [np.empty(0, LINE)]
    for number in range(len(task.buckets)):
        keys = frequent(records["key"][bucket == number], task.more_than)
        piece = np.empty(len(keys), LINE)
        piece["bucket"], piece["key"] = number, keys
        pieces.append(piece)
    shuffle.save(np.concatenate(pieces), task.path)


def find_repeated_lines(
    pages: Sequence[Path], repeats: Repeats, decisions: Decisions, *, lines: int, result: Path, job: Job
) -> None:
    """Write to ``result`` the lines (:data:`LINE`, ascending) that too many of the remaining pages have."""
    config = job.config
    partitions = shuffle.partitions_for(lines, config.shuffle_megabytes)
    scatters = [
        ScatterLinesTask(
            tuple(pages[begin : begin + FILES_PER_SCATTER]),
            tuple(repeats.values()),
            partitions,
            result.with_name(f"scattered-lines-{begin // FILES_PER_SCATTER:05}.npy"),
        )
        for begin in range(0, len(pages), FILES_PER_SCATTER)
    ]
    counts = [
        CountLinesTask(
            tuple(task.path for task in scatters),
            number,
            tuple(decisions.buckets),
            config.repeated_lines.max_documents,
            result.with_name(f"lines-{number:05}.npy"),
        )
        for number in range(partitions)
    ]
    scatters_to_do = [task for task in scatters if not task.path.exists()]
    counts_to_do = [task for task in counts if not task.path.exists()]
    with Progress("repeated lines", len(scatters) + len(counts), "tasks", quiet=job.quiet) as progress:
        progress.restore(len(scatters) + len(counts) - len(scatters_to_do) - len(counts_to_do))
        for _ in job.runner.map(scatter_lines, scatters_to_do):
            progress.advance()
        for _ in job.runner.map(count_lines, counts_to_do):
            progress.advance()
    found = np.concatenate([shuffle.load(task.path) for task in counts])
    shuffle.save(np.sort(found, order=("bucket", "key")), result)
    for path in (*(task.path for task in scatters), *(task.path for task in counts)):
        path.unlink()
