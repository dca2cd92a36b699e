"""Counts the corpus once repeated pages are out, and makes the decisions that the third pass looks up.

Each shard is counted on its own, and the counts are added up. Personal data and dirty words by host decide which hosts
to drop, scores by language the cutoffs of quality, words by domain which domains to down-sample, and documents where
the buckets of repeated lines begin.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from herdlm.base.artifact import write_text_durably
from herdlm.base.progress import Progress
from herdlm.curate import shuffle
from herdlm.curate.config import CurateConfig
from herdlm.curate.corpus import Decisions
from herdlm.curate.funnel import host_of
from herdlm.curate.job import Job
from herdlm.curate.steps.domains.shares import keep_shares
from herdlm.curate.steps.hosts import HostCounts, add_hosts, check_host, rank_hosts
from herdlm.curate.steps.outliers import WordCounts, words_file
from herdlm.curate.steps.quality.cutoffs import ScoreCounts, cutoffs

HOSTS = "hosts.json"
MAX_RANKED_HOSTS = 10_000
_TALLIED = ("language", "quality", "domain", "words", "url", "pii", "dirty_words")


@dataclass(frozen=True, slots=True)
class TallyTask:
    """Count the remaining pages of one file of the first pass."""

    pages: Path
    dropped: tuple[Path, ...]
    path: Path

    def __str__(self) -> str:
        return f"the count of {self.pages.name}"


def remaining(pages: Path, dropped: Sequence[Path], columns: Sequence[str]) -> pa.Table:
    """Return ``row`` and ``columns`` of the pages that no step has dropped so far."""
    table = pq.read_table(pages, columns=["row", "digest", *columns])
    is_in = table["digest"].is_valid().to_numpy()
    rows = table["row"].to_numpy()
    for path in dropped:
        is_in &= shuffle.find(rows, shuffle.load(path)[0]) < 0
    return table.filter(pa.array(is_in))


def tally(task: TallyTask) -> None:
    """Count the remaining pages of a file: scores by language, words by domain, hosts, documents and lines."""
    table = remaining(task.pages, task.dropped, [*_TALLIED, "lines"])
    counts, words = ScoreCounts(), Counter[str]()
    counts.add(table["quality"].to_pylist(), table["language"].to_pylist())
    for domain, count in zip(table["domain"].to_pylist(), table["words"].to_pylist(), strict=True):
        words[domain] += count
    scores = {
        language: [np.flatnonzero(each).tolist(), each[each > 0].tolist()]
        for language, each in counts.by_language.items()
    }
    hosts: dict[str, HostCounts] = {}
    for url, *each in zip(*(table[name].to_pylist() for name in ("url", "words", "pii", "dirty_words")), strict=True):
        if url:
            host = host_of(url)
            hosts[host] = hosts.get(host, HostCounts()) + HostCounts(1, *each)
    lines = sum(map(len, table["lines"].to_pylist()))
    first = table["row"][0].as_py() if len(table) else None
    counted = {
        "scores": scores,
        "words": dict(words),
        "hosts": {host: astuple(each) for host, each in hosts.items()},
        "documents": len(table),
        "lines": lines,
        "first": first,
    }
    write_text_durably(task.path, json.dumps(counted))


def decide(pages: Sequence[Path], dropped: Sequence[Path], folder: Path, job: Job) -> tuple[Decisions, int]:
    """Count the corpus with files in ``folder``, write ``HOSTS`` there, and return the decisions and the line count.

    Raises:
        InputError: The caps on domains cannot be met.
    """
    config = job.config
    counts, words = ScoreCounts(), Counter[str]()
    hosts: dict[str, HostCounts] = {}
    documents = lines = 0
    buckets: list[int] = []
    tasks = [TallyTask(path, tuple(dropped), folder / f"tally-{number:06}.json") for number, path in enumerate(pages)]
    to_do = [task for task in tasks if not task.path.exists()]
    with Progress("count", len(tasks), "shards", quiet=job.quiet) as progress:
        progress.restore(len(tasks) - len(to_do))
        for _ in job.runner.map(tally, to_do):
            progress.advance()
    for task in tasks:
        counted = json.loads(task.path.read_text(encoding="utf-8"))
        counts.merge(_counts(counted["scores"]))
        words.update(counted["words"])
        hosts = add_hosts(hosts, {host: HostCounts(*each) for host, each in counted["hosts"].items()})
        if counted["documents"] and (not buckets or documents >= config.repeated_lines.bucket_documents):
            buckets.append(counted["first"])
            documents = 0
        documents += counted["documents"]
        lines += counted["lines"]
    shares = keep_shares(words, config.domains.max_share)
    dropped_hosts = {host: why for host, each in hosts.items() if (why := check_host(each, config.hosts))}
    _write_hosts(hosts, dropped_hosts, config, folder / HOSTS)
    decisions = Decisions(
        hosts=dropped_hosts, cutoffs=cutoffs(counts, config.quality), keep_shares=shares, buckets=buckets
    )
    return decisions, lines


def _write_hosts(hosts: dict[str, HostCounts], dropped: dict[str, str], config: CurateConfig, path: Path) -> None:
    """Write the hosts ranked by density of personal data and dirty words, which helps to set the thresholds."""
    worst = [(host, excess) for host, excess in rank_hosts(hosts, config.hosts) if excess > 0][:MAX_RANKED_HOSTS]
    ranking = [
        {
            "host": host,
            "pages": hosts[host].pages,
            "of_threshold": round(excess, 4),
            "pii_per_1000_words": round(hosts[host].pii_per_1000_words, 4),
            "dirty_words_per_1000_words": round(hosts[host].dirty_words_per_1000_words, 4),
            "dropped": dropped.get(host),
        }
        for host, excess in worst
    ]
    write_text_durably(path, json.dumps(ranking, indent=2, ensure_ascii=False) + "\n")


def add_words(pages: Sequence[Path], result: Path) -> None:
    """Write to ``result`` the word counts of all pages that the first pass kept."""
    total = WordCounts()
    for path in pages:
        total = total + WordCounts.read(words_file(path))
    temporary = result.with_name(f".{result.name}.tmp")
    total.write(temporary)
    temporary.replace(result)


def _counts(scores: dict[str, Any]) -> ScoreCounts:
    counts = ScoreCounts()
    for language, (steps, often) in scores.items():
        counts.of(language)[steps] = often
    return counts
