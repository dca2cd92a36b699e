"""Curation end to end: reads raw pages, and writes clean documents and an account of all others.

Sources are divided into shards, and three passes go over them. The first takes the pages of each shard through the
steps that judge each page on its own (``first_pass.py``, ``annotate.py``). The second finds repeated pages by keys and
row numbers, without moving text (``repeats.py``). The third writes the pages of each shard to the documents or to the
dropped ones (``assemble.py``). Tasks only read and write files, which appear by a rename, so a killed run resumes where
it was, and processes and a cluster (``runner/``) make the same bytes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from herdlm.base.artifact import hash_json, write_text_durably
from herdlm.base.errors import InputError
from herdlm.curate.assemble import DECISIONS, DOCUMENTS, DROPPED, LINES, WORDS, assemble_all
from herdlm.curate.config import CurateConfig
from herdlm.curate.count_lines import find_repeated_lines
from herdlm.curate.decide import HOSTS, add_words, decide
from herdlm.curate.duplicates.index import Index
from herdlm.curate.first_pass import annotate_all
from herdlm.curate.funnel_report import funnel_report
from herdlm.curate.job import Job
from herdlm.curate.repeats import Repeats, find_repeats
from herdlm.curate.runner.open import open_runner
from herdlm.curate.sources.find import find_sources
from herdlm.curate.step import Ledger
from herdlm.curate.steps.contamination.benchmarks import Contamination
from herdlm.curate.steps.contamination.report import ContaminationCounts
from herdlm.curate.steps.contents import document_steps, funnel_steps, page_steps

PART = re.compile(r"part-\d{5,}\.parquet")
FUNNEL, SAMPLES, TIMING = "funnel.json", "samples.json", "timing.json"
CONTAMINATION = "contamination.json"


def curate(
    sources: Sequence[str],
    out: Path,
    config: CurateConfig,
    *,
    seed: int = 0,
    quiet: bool = False,
    work: Path | None = None,
) -> dict[str, Any]:
    """Curate ``sources`` (paths, globs, addresses) into the existing empty folder ``out``, and return the funnel.

    Writes ``documents/part-*.parquet`` (the pages kept, in the order of the sources), ``dropped/part-*.parquet`` (the
    others with step and reason, see ``config.keep_dropped``), ``funnel.json``, ``samples.json``, ``hosts.json`` (the
    worst hosts by personal data and dirty words) and ``timing.json`` (CPU seconds by step). The same sources,
    configuration and seed give the same bytes, except for the timing, with any number of workers and on a cluster.

    ``work`` holds finished parts until the end, so that a killed run can resume. By default, it is beside ``out``.

    Raises:
        InputError: A source is missing, empty, of unknown format or without pages, a model or list that a step needs
            is missing, a step of the user's own fails, or no page is left.
        HerdError: A worker died repeatedly.
    """
    for step in (*page_steps(config), *document_steps(config)):
        step.check()
    if config.index:
        Index.open(Path(config.index), config.near_duplicates)  # checks its files and parameters
    files = find_sources(sources, config)
    work = work or out.with_name(f".{out.name}.curate")
    work.mkdir(parents=True, exist_ok=True)
    with open_runner(config, work) as runner:
        job = Job(config, seed, work, runner, quiet)
        tasks, kept = annotate_all(files, job)
        made_of = hash_json([task.fingerprint for task in tasks])
        pages = [task.path for task in tasks]
        repeats = find_repeats(pages, kept, made_of, job)
        result = work / f"result-{made_of[:16]}"
        result.mkdir(exist_ok=True)
        _decide(pages, repeats, result, job)
        parts = assemble_all(files, tasks, repeats, result, job)
    ledger = Ledger(seed)
    contamination = ContaminationCounts(Contamination.load(config.contamination.benchmarks))
    for task, part in zip(tasks, parts, strict=True):
        ledger.add(task.account())
        account = json.loads(part.account.read_text(encoding="utf-8"))
        contamination.merge(account.pop("contamination"))
        ledger.add(account)
    rows = funnel_steps(config)
    funnel = funnel_report(ledger.funnel, rows, files=len(files), file_bytes=sum(file.bytes for file in files))
    if not funnel["output"]["documents"]:
        raise _nothing_left(funnel)
    _publish(result, out, funnel, ledger.samples.as_dict(rows), ledger.seconds)
    if config.contamination.benchmarks:
        report = json.dumps(contamination.report(), indent=2, ensure_ascii=False)
        write_text_durably(out / CONTAMINATION, report + "\n")
    shutil.rmtree(work)
    return funnel


def _decide(pages: Sequence[Path], repeats: Repeats, result: Path, job: Job) -> None:
    """Decide, between the second pass and the third, what depends on the corpus as a whole."""
    if (result / LINES).exists():
        return
    decisions, lines = decide(pages, tuple(repeats.values()), result, job)
    decisions.write(result / DECISIONS)
    add_words(pages, result / WORDS)
    find_repeated_lines(pages, repeats, decisions, lines=lines, result=result / LINES, job=job)


def _publish(
    result: Path, out: Path, funnel: dict[str, Any], samples: dict[str, Any], seconds: dict[str, float]
) -> None:
    """Move the result to ``out``, the funnel last. Of a folder of parts, only the parts: nothing else is published."""
    for kind in (DOCUMENTS, DROPPED):
        if (result / kind).is_dir():
            for other in [path for path in (result / kind).iterdir() if not PART.fullmatch(path.name)]:
                other.unlink()
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
