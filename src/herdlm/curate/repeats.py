"""The second pass: finds the pages that repeat others, by keys and row numbers alone.

Each step compares the pages that the steps before it kept. Its result is a file of the rows to drop, ascending, and the
row that each repeats. Later tasks look up their rows in it by binary search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.parquet as pq

from herdlm.base.artifact import hash_json
from herdlm.base.progress import Progress
from herdlm.curate import shuffle
from herdlm.curate.duplicates.groups import unique_pairs
from herdlm.curate.job import Job
from herdlm.curate.runner.interface import Runner
from herdlm.curate.shuffle import Records
from herdlm.curate.step import Compared, CorpusStep
from herdlm.curate.steps.contents import corpus_steps

FILES_PER_SCATTER = 64

Repeats = dict[str, Path]  # step -> file of (2, N): rows to drop, ascending, and the rows they repeat


@dataclass(frozen=True, slots=True)
class ScatterTask:
    """Scatters the keys that one step makes of some files of the first pass."""

    step: CorpusStep
    pages: tuple[Path, ...]
    dropped: tuple[Path, ...]  # results of the steps before
    partitions: int
    path: Path

    def __str__(self) -> str:
        return f"{self.step.name} of {self.pages[0].name} and {len(self.pages) - 1} more"


@dataclass(frozen=True, slots=True)
class GatherTask:
    """Compares the pages of one partition for one step."""

    step: CorpusStep
    scattered: tuple[Path, ...]
    partition: int
    path: Path
    compared: Compared

    def __str__(self) -> str:
        return f"{self.step.name}, partition {self.partition}"


Task = TypeVar("Task", ScatterTask, GatherTask)


def find_repeats(pages: Sequence[Path], kept: int, made_of: str, job: Job) -> Repeats:
    """Return the results of all corpus steps for the pages of the first pass, of which ``kept`` are left.

    ``made_of`` identifies the pages: results for other pages are not reused.
    """
    found: Repeats = {}
    for step in corpus_steps(job.config):
        partitions = shuffle.partitions_for(kept * step.keys_per_page, job.config.shuffle_megabytes, step.record)
        folder = job.work / "shuffle" / f"{step.name}-{hash_json([made_of, partitions])[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        result = folder / "repeats.npy"
        if not result.exists():
            dropped = tuple(found.values())
            scatters = [
                ScatterTask(
                    step,
                    tuple(pages[begin : begin + FILES_PER_SCATTER]),
                    dropped,
                    partitions,
                    folder / f"scattered-{begin // FILES_PER_SCATTER:05}.npy",
                )
                for begin in range(0, len(pages), FILES_PER_SCATTER)
            ]
            _find(step, scatters, partitions, result, compared=Compared(tuple(pages)), job=job)
        found[step.name] = result
    return found


def _find(
    step: CorpusStep, scatters: Sequence[ScatterTask], partitions: int, result: Path, *, compared: Compared, job: Job
) -> None:
    """Run one step: scatter, gather, settle, and delete the intermediate files."""
    scattered = tuple(task.path for task in scatters)
    gathers = [
        GatherTask(step, scattered, number, result.with_name(f"pairs-{number:05}.npy"), compared)
        for number in range(partitions)
    ]
    total = len(scatters) + len(gathers)
    with Progress(step.name.replace("_", " "), total, "tasks", quiet=job.quiet) as progress:
        _run(job.runner, scatter, scatters, progress)
        _run(job.runner, gather, gathers, progress)
    pairs = np.concatenate([shuffle.load(task.path) for task in gathers])
    shuffle.save(np.stack(step.settle(unique_pairs(pairs))), result)
    for path in (*scattered, *(task.path for task in gathers)):
        path.unlink()


def _run(runner: Runner, function: Callable[[Task], None], tasks: Sequence[Task], progress: Progress) -> None:
    """Run the tasks that an earlier run did not finish."""
    to_do = [task for task in tasks if not task.path.exists()]
    progress.restore(len(tasks) - len(to_do))
    for _ in runner.map(function, to_do):
        progress.advance()


def scatter(task: ScatterTask) -> None:
    """Scatter the keys of the pages that no step has dropped."""
    dropped = [shuffle.load(path)[0] for path in task.dropped]
    pieces: list[Records] = []
    for path in task.pages:
        table = pq.read_table(path, columns=["row", *task.step.columns])
        table = table.filter(table[task.step.columns[0]].is_valid())
        is_in = np.ones(len(table), bool)
        for rows in dropped:
            is_in &= shuffle.find(table["row"].to_numpy(), rows) < 0
        pieces.append(task.step.keys(table.filter(is_in)))
    shuffle.scatter(np.concatenate([*pieces, np.empty(0, task.step.record)]), task.partitions, task.path)


def gather(task: GatherTask) -> None:
    """Compare the pages of one partition."""
    records = shuffle.gather(task.scattered, task.partition, task.step.record)
    shuffle.save(task.step.gather(records, task.compared), task.path)
