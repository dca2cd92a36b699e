"""The first pass: one shard's pages through the steps that need one page alone, into a file of what is known of them.

The file is published by a rename and carries in its footer the fingerprint of what made it and the shard's counts. A
run that was killed finds it there, and takes it if it would make the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from herdlm.base.artefact import hash_json
from herdlm.curate.batch import Batch
from herdlm.curate.config import PACE, CurateConfig
from herdlm.curate.documents import FINGERPRINTS, PAGE_SCHEMA, RowWriter
from herdlm.curate.duplicates.url import url_key
from herdlm.curate.sources.page import Page
from herdlm.curate.sources.reach import Reach
from herdlm.curate.sources.shards import NUMBER_BITS, Shard, read_shard
from herdlm.curate.step import Ledger, run_steps, still_in
from herdlm.curate.steps.contents import page_steps
from herdlm.curate.steps.exact_duplicates import digest
from herdlm.curate.steps.near_duplicates.minhash import band_keys, fingerprint
from herdlm.curate.steps.near_duplicates.sketches import write_sketches
from herdlm.curate.steps.older_versions import parse_date
from herdlm.curate.steps.outliers import WordCounts, words_file
from herdlm.curate.steps.repeated_lines import line_keys

BATCH_BYTES = 4 << 20
FINGERPRINT, SUMMARY, ACCOUNT = b"herdlm.fingerprint", b"herdlm.summary", b"herdlm.account"


@dataclass(frozen=True, slots=True)
class AnnotateTask:
    """One shard to be worked on, and where its pages go."""

    shard: Shard
    config: CurateConfig
    seed: int
    path: Path
    version: str

    def __str__(self) -> str:
        return str(self.shard)

    @property
    def fingerprint(self) -> str:
        """Equal for tasks that make equal files."""
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

    def finished(self) -> dict[str, Any] | None:
        """The summary that an earlier run left, if it made the same."""
        try:
            metadata = pq.read_metadata(self.path).metadata or {}
        except (pa.ArrowInvalid, OSError):
            return None
        if metadata.get(FINGERPRINT) != self.fingerprint.encode():
            return None
        summary: dict[str, Any] = json.loads(metadata[SUMMARY])
        return summary

    def account(self) -> dict[str, Any]:
        """Return what the steps did to the shard's pages, as :meth:`Ledger.as_json` returns it."""
        account: dict[str, Any] = json.loads(pq.read_metadata(self.path).metadata[ACCOUNT])
        return account


def annotate(task: AnnotateTask) -> dict[str, Any]:
    """Work on one shard; tell how many pages, and where its first record and the next shard's start."""
    config, shard = task.config, task.shard
    reach = Reach(shard.begin if shard.start is None else shard.start, shard.end, known=shard.start is not None)
    ledger, steps = Ledger(task.seed), page_steps(config)
    pages = usable = kept = 0
    words = WordCounts()
    rows: list[int] = []
    sketches: list[NDArray[np.uint8]] = []
    with RowWriter(task.path, PAGE_SCHEMA) as writer:
        for batch in _batches(shard, reach, config):
            pages += len(batch["row"])
            usable += batch["fault"].count(None)
            run_steps(batch, steps, ledger)
            kept += batch["step"].count(None)
            with ledger.timed("word counts"):
                for i in still_in(batch):
                    words.add(batch["split"][i], batch["language"][i])
            with ledger.timed("fingerprints"):
                _fingerprint(batch, config, rows, sketches)
            with ledger.timed("write"):
                writer.write(batch, range(len(batch["row"])))
        words.write(words_file(task.path))
        write_sketches(task.path, rows, sketches, config.near_duplicates.sketch)
        summary = {
            "pages": pages,
            "usable": usable,
            "kept": kept,
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
    """The shard's pages by at most ``batch_pages``, and fewer where they are large."""
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
            for name in ("url", "date", "payload", "charset", "kind", "language", "fault")
        },
        "bytes": [len(page.payload) for page in pages],
        **{name: [0] * count for name in ("words", "pii", "dirty_words")},
        "text": [""] * count,
        **{
            name: list(nothing)
            for name in ("language_score", "quality", "domain", "step", "reason", "split", *FINGERPRINTS)
        },
    }


def _fingerprint(batch: Batch, config: CurateConfig, rows: list[int], sketches: list[NDArray[np.uint8]]) -> None:
    """Set what the corpus steps compare by, for the pages that are still in; add their ``sketches`` and ``rows``."""
    near, at = config.near_duplicates, still_in(batch)
    if not at:
        return
    signatures: list[NDArray[np.uint32]] = []
    for i in at:
        words, url = batch["split"][i], batch["url"][i]
        batch["digest"][i] = digest(" ".join(words.normalized))
        minima, sketch = fingerprint(words.normalized, near)
        batch["lines"][i] = line_keys(words.text, words.normalized_lines).tolist()
        if url:
            batch["url_key"][i], batch["time"][i] = url_key(url), parse_date(batch["date"][i])
        rows.append(batch["row"][i])
        signatures.append(minima)
        sketches.append(sketch)
    bands = band_keys(np.stack(signatures), near.bands, [batch["language"][i] for i in at])
    for i, keys in zip(at, bands.tolist(), strict=True):
        batch["bands"][i] = keys
