"""Curation end to end: raw pages in, clean documents and the account of all others out.

Sources are divided into shards, and three passes go over them. The first takes every shard's pages through the steps
that need one page alone, into a file of its own (``annotate.py``). The second finds repeated pages from keys and row
numbers, never moving text (``repeats.py``). The third sends every shard's pages to the documents or to those dropped
(``assemble.py``). Tasks read and write files only, published by a rename: a run that was killed goes on where it was,
and processes or a cluster (``runner/``) make the same bytes.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import herdlm
from herdlm.base.artefact import hash_json, write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.progress import Progress
from herdlm.curate.annotate import AnnotateTask, annotate
from herdlm.curate.assemble import ACCOUNTS, DOCUMENTS, DROPPED, AssembleTask, assemble
from herdlm.curate.config import CurateConfig
from herdlm.curate.count_lines import find_repeated_lines
from herdlm.curate.decide import HOSTS, add_words, decide
from herdlm.curate.duplicates.index import Index
from herdlm.curate.job import Job
from herdlm.curate.repeats import Repeats, find_repeats
from herdlm.curate.runner.open import open_runner
from herdlm.curate.sources.find import SourceFile, find_sources
from herdlm.curate.sources.shards import check_pages, plan_shards
from herdlm.curate.step import Ledger
from herdlm.curate.steps.contamination.benchmarks import Contamination
from herdlm.curate.steps.contamination.report import ContaminationCounts
from herdlm.curate.steps.contents import document_steps, funnel_steps, page_steps

FUNNEL, SAMPLES, TIMING = "funnel.json", "samples.json", "timing.json"
CONTAMINATION, DECISIONS = "contamination.json", "decisions.json"
LINES, WORDS = "lines.npy", "words.npz"

Summary = dict[str, Any]


def curate(
    sources: Sequence[str],
    out: Path,
    config: CurateConfig,
    *,
    seed: int = 0,
    quiet: bool = False,
    work: Path | None = None,
) -> dict[str, Any]:
    """Curate ``sources`` (paths, globs, addresses) into the existing empty folder ``out`` and return the funnel.

    Writes ``documents/part-*.parquet`` (the pages kept, in the order of the sources), ``dropped/part-*.parquet`` (the
    others with step and reason, as ``config.keep_dropped`` says), ``funnel.json``, ``samples.json``, ``hosts.json``
    (the worst by personal data and dirty words) and, not part of what is the same each time, ``timing.json`` with CPU
    seconds by step. The same sources, configuration and seed give the same bytes, for any number of workers and on a
    cluster.

    ``work`` holds what is finished until all is, so that a run that was killed goes on; beside ``out`` where not given.

    Raises:
        InputError: a source is missing, empty, of unknown format or without pages, a model or list that a step needs
            is missing, or no page is left.
        HerdError: a worker died again and again.
    """
    for step in (*page_steps(config), *document_steps(config)):
        step.check()
    if config.index:
        Index.open(Path(config.index), config.near_duplicates)  # whole and with these parameters, or nothing begins
    files = find_sources(sources, config)
    work = work or out.with_name(f".{out.name}.curate")
    work.mkdir(parents=True, exist_ok=True)
    with open_runner(config, work) as runner:
        job = Job(config, seed, work, runner, quiet)
        tasks, kept = _annotate_all(files, job)
        made_of = hash_json([task.fingerprint for task in tasks])
        pages = [task.path for task in tasks]
        repeats = find_repeats(pages, kept, made_of, job)
        result = work / f"result-{made_of[:16]}"
        result.mkdir(exist_ok=True)
        _decide(pages, repeats, result, job)
        parts = _assemble_all(files, tasks, repeats, result, job)
    ledger = Ledger(seed)
    contamination = ContaminationCounts(Contamination.load(config.contamination.benchmarks))
    for task, part in zip(tasks, parts, strict=True):
        ledger.add(task.account())
        account = json.loads(part.account.read_text(encoding="utf-8"))
        contamination.merge(account.pop("contamination"))
        ledger.add(account)
    rows = funnel_steps(config)
    funnel = ledger.funnel.as_dict(rows, files=len(files), file_bytes=sum(file.bytes for file in files))
    if not funnel["output"]["documents"]:
        raise _nothing_left(funnel)
    _publish(result, out, funnel, ledger.samples.as_dict(rows), ledger.seconds)
    if config.contamination.benchmarks:
        report = json.dumps(contamination.report(), indent=2, ensure_ascii=False)
        write_text_durably(out / CONTAMINATION, report + "\n")
    shutil.rmtree(work)
    return funnel


def _annotate_all(files: Sequence[SourceFile], job: Job) -> tuple[list[AnnotateTask], int]:
    """The first pass: the task of every shard, all done, and how many pages are still in."""
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
            to_do = _astray(tasks, summaries)
            for task in to_do:
                tasks[task.shard.number] = task
    for number, file in enumerate(files):
        of_file = [summaries[task.shard.number] for task in tasks if task.shard.file_number == number]
        check_pages(file, sum(s["pages"] for s in of_file), sum(s["usable"] for s in of_file), job.config)
    return tasks, sum(summary["kept"] for summary in summaries.values())


def _made_with(config: CurateConfig) -> str:
    """What the same recipe would make other files with: herdlm, and the models, lists and indexes that it names."""
    made_with: list[Any] = [herdlm.__version__, config.fingerprint().get("steps", {})]
    for aid in map(Path, config.aids):
        for path in [aid, *sorted(aid.rglob("*"))]:
            status = path.stat()
            made_with.append([str(path), status.st_size, status.st_mtime_ns])
    return hash_json(made_with)


def _astray(tasks: Sequence[AnnotateTask], summaries: dict[int, Summary]) -> list[AnnotateTask]:
    """The shards whose reader began elsewhere than where the one before it saw the next record, told the right place.

    Of each file only the first, and those that lie before that place: what is behind may be right once they are.
    """
    found: list[AnnotateTask] = []
    right: int | None = None  # where the next record of this file starts, once a reader was found astray
    for before, task in itertools.pairwise(tasks):
        if before.shard.file_number != task.shard.file_number:
            right = None
            continue
        summary = summaries[before.shard.number]
        if right is None and summary["next"] != summaries[task.shard.number]["first"] and not summary["lost"]:
            right = task.shard.end if summary["next"] is None else summary["next"]
            found.append(replace(task, shard=replace(task.shard, start=right)))
        elif right is not None and task.shard.begin < right:
            found.append(replace(task, shard=replace(task.shard, start=right)))
    return found


def _decide(pages: Sequence[Path], repeats: Repeats, result: Path, job: Job) -> None:
    """Between the second pass and the third: what the corpus as a whole says about its documents and lines."""
    if (result / LINES).exists():
        return
    decisions, lines = decide(pages, tuple(repeats.values()), result, job)
    decisions.write(result / DECISIONS)
    add_words(pages, result / WORDS)
    find_repeated_lines(pages, repeats, decisions, lines=lines, result=result / LINES, job=job)


def _assemble_all(
    files: Sequence[SourceFile], tasks: Sequence[AnnotateTask], repeats: Repeats, result: Path, job: Job
) -> list[AssembleTask]:
    """The third pass: the task of every shard, all done."""
    for kind in (DOCUMENTS, ACCOUNTS, *([DROPPED] if job.config.keep_dropped != "none" else [])):
        (result / kind).mkdir(parents=True, exist_ok=True)
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


def _publish(
    result: Path, out: Path, funnel: dict[str, Any], samples: dict[str, Any], seconds: dict[str, float]
) -> None:
    """Move the result to where the caller wants it."""
    for kind in (DOCUMENTS, DROPPED):
        if (result / kind).is_dir():
            shutil.move(result / kind, out / kind)
    shutil.move(result / HOSTS, out / HOSTS)
    timing = {"cpu_seconds": {name: round(spent, 3) for name, spent in seconds.items()}}
    for name, content in ((SAMPLES, samples), (TIMING, timing), (FUNNEL, funnel)):
        write_text_durably(out / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _nothing_left(funnel: dict[str, Any]) -> InputError:
    worst = max(funnel["steps"], key=lambda step: step["documents_dropped"])
    reasons = ", ".join(f"{reason} {of['documents']:,}" for reason, of in worst["dropped"].items())
    total = funnel["input"]["documents"]
    return InputError(
        f"no document is left of {total:,} pages: step {worst['step']} dropped most ({reasons})",
        "Loosen the keys of the recipe's curate section that this step reads, or give other sources",
    )
