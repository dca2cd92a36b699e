"""What is known of the corpus as a whole once repeated pages are out, and decides about documents in the third pass.

Counts are made per shard and added up: personal data and dirty words by host say which hosts go, scores by language
where the cut of quality is, words by domain which domains are too common, documents where buckets of lines begin.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from herdlm.base.artefact import write_text_durably
from herdlm.base.progress import Progress
from herdlm.curate import shuffle
from herdlm.curate.config import CurateConfig
from herdlm.curate.funnel import host_of
from herdlm.curate.job import Job
from herdlm.curate.steps.contamination.benchmarks import Contamination
from herdlm.curate.steps.contamination.report import ContaminationCounts
from herdlm.curate.steps.domains.shares import keep_shares
from herdlm.curate.steps.hosts import HostCounts, add_hosts, check_host, rank_hosts
from herdlm.curate.steps.outliers import Reference, WordCounts, references
from herdlm.curate.steps.quality.cutoffs import ScoreCounts, cutoffs


class Decisions(BaseModel):
    """What the corpus as a whole decides.

    Attributes:
        hosts: why all of a host's pages are dropped, by host.
        cuts: by language, the lowest quality that stays.
        keep_shares: by domain, the share of documents that stays.
        buckets: the first row of each bucket over which lines are counted.
    """

    model_config = ConfigDict(extra="forbid")

    hosts: dict[str, str]
    cuts: dict[str, float]
    keep_shares: dict[str, float]
    buckets: list[int]


HOSTS = "hosts.json"
MOST_HOSTS = 10_000  # that the ranking tells
_TALLIED = ("language", "quality", "domain", "words", "url", "pii", "dirty_words")


@dataclass(frozen=True, slots=True)
class TallyTask:
    """One of the first pass's files, of which the pages that no step has dropped are counted."""

    pages: Path
    dropped: tuple[Path, ...]
    path: Path

    def __str__(self) -> str:
        return f"the count of {self.pages.name}"


def remaining(pages: Path, dropped: Sequence[Path], columns: Sequence[str]) -> pa.Table:
    """Columns of the pages, ``row`` among them, that no step so far has dropped."""
    table = pq.read_table(pages, columns=["row", "digest", *columns])
    is_in = table["digest"].is_valid().to_numpy()
    rows = table["row"].to_numpy()
    for path in dropped:
        is_in &= shuffle.find(rows, shuffle.load(path)[0]) < 0
    return table.filter(pa.array(is_in))


def tally(task: TallyTask) -> None:
    """Count one file's remaining pages: scores by language, words by domain, the first row, documents and lines."""
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
    told = {
        "scores": scores,
        "words": dict(words),
        "hosts": {host: astuple(each) for host, each in hosts.items()},
        "documents": len(table),
        "lines": lines,
        "first": first,
    }
    write_text_durably(task.path, json.dumps(told))


def decide(pages: Sequence[Path], dropped: Sequence[Path], folder: Path, job: Job) -> tuple[Decisions, int]:
    """Count the corpus, by files in ``folder``, and decide; also the number of its lines. Writes HOSTS there.

    Raises:
        InputError: caps on domains cannot be kept.
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
        told = json.loads(task.path.read_text(encoding="utf-8"))
        counts.merge(_counts(told["scores"]))
        words.update(told["words"])
        hosts = add_hosts(hosts, {host: HostCounts(*each) for host, each in told["hosts"].items()})
        if told["documents"] and (not buckets or documents >= config.repeated_lines.bucket_documents):
            buckets.append(told["first"])
            documents = 0
        documents += told["documents"]
        lines += told["lines"]
    shares = keep_shares(words, config.domains.max_share)
    dropped_hosts = {host: why for host, each in hosts.items() if (why := check_host(each, config.hosts))}
    cuts = cutoffs(counts, config.quality)
    _write_hosts(hosts, dropped_hosts, config, folder / HOSTS)
    return Decisions(hosts=dropped_hosts, cuts=cuts, keep_shares=shares, buckets=buckets), lines


def _write_hosts(hosts: dict[str, HostCounts], dropped: dict[str, str], config: CurateConfig, path: Path) -> None:
    """The ranking of hosts by density of personal data and dirty words, for whoever sets the thresholds."""
    worst = [(host, excess) for host, excess in rank_hosts(hosts, config.hosts) if excess > 0][:MOST_HOSTS]
    told = [
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
    write_text_durably(path, json.dumps(told, indent=2, ensure_ascii=False) + "\n")


def words_file(pages: Path) -> Path:
    """Where the words of a file of pages are counted."""
    return pages.with_suffix(".words.npz")


def add_words(pages: Sequence[Path], result: Path) -> None:
    """Write into ``result`` the words of all pages that were still in after the first pass."""
    total = WordCounts()
    for path in pages:
        total = total + WordCounts.read(words_file(path))
    temporary = result.with_name(f".{result.name}.tmp")
    total.write(temporary)
    temporary.replace(result)


def _counts(told: dict[str, Any]) -> ScoreCounts:
    counts = ScoreCounts()
    for language, (steps, often) in told.items():
        counts.of(language)[steps] = often
    return counts


@dataclass(frozen=True)
class Corpus:
    """What a document step may look up.

    Args:
        decisions_file: of :class:`Decisions`.
        lines_file: of repeated lines, as ``repeated_lines.LINE``.
        words_file: of the corpus's words.
    """

    config: CurateConfig
    seed: int
    decisions_file: Path
    lines_file: Path
    words_file: Path

    @cached_property
    def decisions(self) -> Decisions:
        """What the corpus decides."""
        return Decisions.model_validate_json(self.decisions_file.read_text(encoding="utf-8"))

    @cached_property
    def word_references(self) -> dict[str, Reference]:
        """How often words are in the languages of the corpus."""
        return references(WordCounts.read(self.words_file), self.config.outliers)

    @cached_property
    def contamination(self) -> ContaminationCounts:
        """The benchmarks, and the counts of what this shard holds of them."""
        return ContaminationCounts(Contamination.load(self.config.contamination.benchmarks))

    @cached_property
    def _lines(self) -> NDArray[np.void]:
        return shuffle.load(self.lines_file)

    def repeated_lines(self, row: int) -> NDArray[np.uint64]:
        """The keys of lines that are repeated too often in a row's bucket, ascending."""
        bucket = int(np.searchsorted(self.decisions.buckets, row, side="right")) - 1
        begin, end = np.searchsorted(self._lines["bucket"], [bucket, bucket + 1])
        keys: NDArray[np.uint64] = self._lines["key"][begin:end]
        return keys


def write_decisions(decisions: Decisions, path: Path) -> None:
    """Write what was decided, whole or not at all."""
    write_text_durably(path, decisions.model_dump_json(indent=2) + "\n")
