"""The first pass over all shards: runs their tasks, and repeats those that started inside a record."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import herdlm
from herdlm.base.artifact import hash_json
from herdlm.base.progress import Progress
from herdlm.curate.annotate import AnnotateTask, Summary, annotate
from herdlm.curate.config import CurateConfig
from herdlm.curate.job import Job
from herdlm.curate.sources.file import SourceFile
from herdlm.curate.sources.shards import check_pages, plan_shards


def annotate_all(files: Sequence[SourceFile], job: Job) -> tuple[list[AnnotateTask], int]:
    """Run the first pass over all shards. Return the tasks, all finished, and the number of pages kept.

    Raises:
        InputError: A file cannot be read, or has no pages of the kind that its format promises.
        HerdError: A worker died repeatedly.
    """
    folder = job.work / "pages"
    folder.mkdir(exist_ok=True)
    version = _made_with(job.config)
    tasks = [
        AnnotateTask(shard, job.config, job.seed, folder / f"shard-{shard.number:06}.parquet", version)
        for shard in plan_shards(files, job.config)
    ]
    summaries: dict[int, Summary] = {}
    with Progress("curate", sum(task.shard.bytes for task in tasks) or None, "bytes", quiet=job.quiet) as progress:
        for task in tasks:
            if (summary := task.finished()) is not None:
                summaries[task.shard.number] = summary
                progress.restore(task.shard.bytes)
        to_do = [task for task in tasks if task.shard.number not in summaries]
        pages = sum(summary["pages"] for summary in summaries.values())
        while to_do:
            for task, summary in zip(to_do, job.runner.map(annotate, to_do), strict=True):
                summaries[task.shard.number] = summary
                pages += summary["pages"]
                progress.advance(task.shard.bytes, f"{pages:,} pages")
            to_do = _misaligned(tasks, summaries)
            for task in to_do:
                tasks[task.shard.number] = task
    for number, file in enumerate(files):
        of_file = [summaries[task.shard.number] for task in tasks if task.shard.file_number == number]
        found = {kind: sum(s["found"][kind] for s in of_file) for kind in ("url", "address", "date")}
        check_pages(file, sum(s["pages"] for s in of_file), sum(s["usable"] for s in of_file), job.config, found)
    return tasks, sum(summary["kept"] for summary in summaries.values())


def _made_with(config: CurateConfig) -> str:
    """Return the hash of what else determines the files: herdlm, the user's own steps, models, lists and indexes."""
    made_with: list[Any] = [herdlm.__version__, config.fingerprint().get("steps", {})]
    for aid in map(Path, config.aids):
        for path in [aid, *sorted(aid.rglob("*"))]:
            status = path.stat()
            made_with.append([str(path), status.st_size, status.st_mtime_ns])
    return hash_json(made_with)


def _misaligned(tasks: Sequence[AnnotateTask], summaries: dict[int, Summary]) -> list[AnnotateTask]:
    """Return the shards that did not start where the shard before found the next record, with the right start.

    Of each file, only the first such shard and those before the right start are returned: later ones may be right once
    these are.
    """
    misaligned: list[AnnotateTask] = []
    right: int | None = None  # where the next record of this file starts, once a shard was misaligned
    for before, task in itertools.pairwise(tasks):
        if before.shard.file_number != task.shard.file_number:
            right = None
            continue
        summary = summaries[before.shard.number]
        if right is None and summary["next"] != summaries[task.shard.number]["first"] and not summary["lost"]:
            right = task.shard.end if summary["next"] is None else summary["next"]
            misaligned.append(replace(task, shard=replace(task.shard, start=right)))
        elif right is not None and task.shard.begin < right:
            misaligned.append(replace(task, shard=replace(task.shard, start=right)))
    return misaligned
