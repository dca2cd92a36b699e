"""The first pass over one shard: reads its pages, takes them through the page steps, and writes them to a file.

The file appears by a rename. Its footer holds the shard's counts and the fingerprint of what made it, so a resumed run
uses the file if it would make the same one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from herdlm.base.artifact import hash_json
from herdlm.curate.batch import Batch
from herdlm.curate.config import PACE, CurateConfig
from herdlm.curate.documents import FINGERPRINTS, PAGE_SCHEMA, RowWriter
from herdlm.curate.fingerprints import Fingerprints
from herdlm.curate.sources.columns import is_address
from herdlm.curate.sources.page import Page
from herdlm.curate.sources.reach import Reach
from herdlm.curate.sources.read import read_shard
from herdlm.curate.sources.shards import NUMBER_BITS, Shard
from herdlm.curate.step import Ledger, run_steps
from herdlm.curate.steps.contents import page_steps

Summary = dict[str, Any]

BATCH_BYTES = 4 << 20
FINGERPRINT, SUMMARY, ACCOUNT = b"herdlm.fingerprint", b"herdlm.summary", b"herdlm.account"


@dataclass(frozen=True, slots=True)
class AnnotateTask:
    """A shard, and the file for its pages. ``version`` identifies the code, models and lists that the steps use."""

    shard: Shard
    config: CurateConfig
    seed: int
    path: Path
    version: str

    def __str__(self) -> str:
        return str(self.shard)

    @property
    def fingerprint(self) -> str:
        """The hash of what determines the task's file."""
        file, shard = self.shard.file, self.shard
        return hash_json(
            {
                "version": self.version,
                "config": self.config.model_dump(mode="json", exclude=set(PACE)),
                "seed": self.seed,
                "file": [file.path, file.name, file.format, file.identity],
                "shard": [shard.file_number, shard.begin, shard.end, shard.start, shard.members],
            }
        )

    def finished(self) -> Summary | None:
        """Return the summary of the file that an earlier run made, or None if there is none or it would differ."""
        try:
            metadata = pq.read_metadata(self.path).metadata or {}
        except (pa.ArrowInvalid, OSError):
            return None
        if metadata.get(FINGERPRINT) != self.fingerprint.encode():
            return None
        summary: Summary = json.loads(metadata[SUMMARY])
        return summary

    def account(self) -> dict[str, Any]:
        """Return what the steps did to the shard's pages, as :meth:`Ledger.as_json` returns it."""
        account: dict[str, Any] = json.loads(pq.read_metadata(self.path).metadata[ACCOUNT])
        return account


def annotate(task: AnnotateTask) -> Summary:
    """Make the file of a shard. Return its page counts, and where its first record and the next shard's start."""
    config, shard = task.config, task.shard
    reach = Reach(shard.begin if shard.start is None else shard.start, shard.end, known=shard.start is not None)
    ledger, steps = Ledger(task.seed), page_steps(config)
    pages = usable = kept = 0
    found = {"url": 0, "address": 0, "date": 0}
    fingerprints = Fingerprints(config.near_duplicates)
    with RowWriter(task.path, PAGE_SCHEMA) as writer:
        for batch in _batches(shard, reach, config):
            pages += len(batch["row"])
            usable += batch["fault"].count(None)
            found["url"] += sum(map(bool, batch["url"]))
            found["address"] += sum(map(is_address, batch["url"]))
            found["date"] += sum(map(bool, batch["date"]))
            run_steps(batch, steps, ledger)
            kept += batch["step"].count(None)
            fingerprints.add(batch, ledger)
            with ledger.timed("write"):
                writer.write(batch, range(len(batch["row"])))
        fingerprints.write(task.path)
        summary: Summary = {
            "pages": pages,
            "usable": usable,
            "kept": kept,
            "found": found,
            "first": reach.first,
            "next": reach.next,
            "lost": reach.lost,
        }
        writer.metadata = {
            FINGERPRINT.decode(): task.fingerprint,
            SUMMARY.decode(): json.dumps(summary),
            ACCOUNT.decode(): json.dumps(ledger.as_json()),
        }
    return summary


def _batches(shard: Shard, reach: Reach, config: CurateConfig) -> Iterator[Batch]:
    """Yield the shard's pages in batches of ``batch_pages``, or fewer if the pages are large."""
    pages: list[Page] = []
    held = 0
    for page in read_shard(shard, reach, config):
        pages.append(page)
        held += len(page.payload)
        if len(pages) >= config.batch_pages or held >= BATCH_BYTES:
            yield _as_batch(pages, shard)
            pages, held = [], 0
    if pages:
        yield _as_batch(pages, shard)


def _as_batch(pages: list[Page], shard: Shard) -> Batch:
    base, count = shard.file_number << NUMBER_BITS, len(pages)
    nothing = [None] * count
    return {
        "row": [base + page.number for page in pages],
        "id": [f"{shard.file.name}#{page.number}" for page in pages],
        "source": [shard.file.name] * count,
        **{
            name: [getattr(page, name) for page in pages]
            for name in ("url", "date", "payload", "charset", "kind", "language", "robots", "fault")
        },
        "bytes": [len(page.payload) for page in pages],
        **{name: [0] * count for name in ("words", "pii", "dirty_words")},
        "text": [""] * count,
        "listings": [frozenset()] * count,
        **{
            name: list(nothing)
            for name in ("language_score", "quality", "domain", "page_type", "step", "reason", "split", *FINGERPRINTS)
        },
    }
