"""Curation end to end: raw pages in, clean documents and the funnel out.

Three passes. The first streams pages through the workers (text, language, heuristics, fingerprints) into a working
file. The second finds duplicates from row numbers and fingerprints alone. The third streams the working file once more
and sends every page to ``documents.parquet`` or ``dropped.parquet``. Pages keep their order throughout, so the result
depends on sources, configuration and seed only.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from herdlm.base.artefact import write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.progress import Progress
from herdlm.base.seeds import derive_seed
from herdlm.curate import dataframe
from herdlm.curate.annotate import ANNOTATED_SCHEMA, annotate
from herdlm.curate.config import CurateConfig
from herdlm.curate.documents import DOCUMENT_SCHEMA, DROPPED_SCHEMA, ROWS_PER_GROUP, DocumentWriter
from herdlm.curate.duplicates.exact import exact_duplicates
from herdlm.curate.duplicates.minhash import near_duplicates
from herdlm.curate.funnel import EXACT, NEAR, Funnel
from herdlm.curate.page import PAGE_SCHEMA
from herdlm.curate.sources import SourceFile, find_sources, read_batches

DOCUMENTS, DROPPED, FUNNEL = "documents.parquet", "dropped.parquet", "funnel.json"


def curate(
    sources: Sequence[str], out: Path, config: CurateConfig, *, seed: int = 0, quiet: bool = False
) -> dict[str, Any]:
    """Curate ``sources`` (paths, globs, URLs) into the existing empty folder ``out`` and return the funnel.

    Writes ``documents.parquet`` (the pages kept, in the order of the sources), ``dropped.parquet`` (the others with
    step and reason, if ``config.keep_dropped``) and ``funnel.json``. The same sources, configuration and seed give the
    same bytes, for any number of workers.

    Raises:
        InputError: a source is missing, empty, cut off, of unknown format or without pages, or no page is left.
    """
    files = find_sources(sources, config)
    with tempfile.TemporaryDirectory(prefix=".curate-", dir=out) as work:
        pages = Path(work) / "pages.parquet"
        _annotate_all(files, pages, config, seed, quiet=quiet)
        repeats = _find_repeats(pages, config)
        funnel = _sort_out(pages, repeats, out, config)
    counts = funnel.as_dict(files=len(files), file_bytes=sum(file.bytes for file in files))
    if not counts["output"]["documents"]:
        raise _nothing_left(counts)
    write_text_durably(out / FUNNEL, json.dumps(counts, indent=2, ensure_ascii=False) + "\n")
    return counts


def _annotate_all(files: Sequence[SourceFile], pages: Path, config: CurateConfig, seed: int, *, quiet: bool) -> None:
    """The first pass: every page with its text, judgements and fingerprints into the working file ``pages``."""
    ahead = dataframe.ReadAhead(config.read_ahead_bytes)
    scan = dataframe.Scan(read_batches(files, config, config.batch_pages), PAGE_SCHEMA, ahead)
    frame = dataframe.map_batches(
        scan.frame(), partial(annotate, config=config), ANNOTATED_SCHEMA,
        batch_rows=config.batch_pages, workers=config.workers,
    )  # fmt: skip
    minhash = config.near_duplicates
    frame = dataframe.with_minhash(
        frame, "normalized", "signature",
        hashes=minhash.bands * minhash.rows, ngram_words=minhash.ngram_words,
        seed=derive_seed(seed, "curate", "minhash") & 0xFFFFFFFF,
    )  # fmt: skip
    schema = ANNOTATED_SCHEMA.remove(ANNOTATED_SCHEMA.get_field_index("normalized"))
    schema = schema.append(pa.field("signature", pa.list_(pa.uint32())))
    total = sum(file.bytes for file in files)
    last = -1
    with (
        pq.ParquetWriter(pages, schema, compression="zstd") as writer,
        Progress("curate", total or None, "bytes", quiet=quiet) as progress,
    ):
        for batch in dataframe.stream(frame):
            rows = batch["row"].to_numpy()
            assert rows[0] == last + 1 and np.all(np.diff(rows) == 1), "the engine must keep the order of pages"
            last = int(rows[-1])
            writer.write_batch(batch.cast(schema))
            ahead.worked_off(pc.sum(batch["raw_bytes"]).as_py())
            progress.advance(pc.sum(batch["read_bytes"]).as_py(), f"{last + 1:,} pages")
        scan.check(last + 1)


def _find_repeats(pages: Path, config: CurateConfig) -> dict[str, pa.Table]:
    """The second pass: by step, the rows that repeat an earlier one (columns row, first)."""

    def remaining(column: str) -> dataframe.Frame:
        frame = dataframe.read_columns(pages, ["row", column])
        return frame.where(frame[column].not_null())

    exact = exact_duplicates(remaining("digest"))
    unique = dataframe.without_rows(remaining("signature"), "row", exact["row"])
    return {EXACT: exact, NEAR: near_duplicates(unique, config.near_duplicates)}


def _sort_out(pages: Path, repeats: dict[str, pa.Table], out: Path, config: CurateConfig) -> Funnel:
    """The third pass: every page to the documents or to those dropped, counted in the funnel."""
    funnel = Funnel()
    firsts = pa.concat_tables(table.select(["first"]) for table in repeats.values())["first"]
    ids = _ids(pages, firsts)
    with ExitStack() as stack:
        documents = stack.enter_context(DocumentWriter(out / DOCUMENTS, DOCUMENT_SCHEMA))
        dropped = stack.enter_context(DocumentWriter(out / DROPPED, DROPPED_SCHEMA)) if config.keep_dropped else None
        for table in _judged(pages, repeats, ids):
            _count(table, funnel)
            is_kept = pc.is_null(table["step"])
            documents.write(table.filter(is_kept))
            if dropped is not None:
                dropped.write(table.filter(pc.invert(is_kept)))
    return funnel


def _ids(pages: Path, rows: pa.ChunkedArray) -> pa.Table:
    """The ids of some rows: columns row, id."""
    with pq.ParquetFile(pages) as file:
        batches = file.iter_batches(batch_size=ROWS_PER_GROUP, columns=["row", "id"])
        tables = [pa.Table.from_batches([b]).filter(pc.is_in(b["row"], rows.combine_chunks())) for b in batches]
    return pa.concat_tables(tables)


def _judged(pages: Path, repeats: dict[str, pa.Table], ids: pa.Table) -> Iterator[pa.Table]:
    """The working file in pieces, with step, reason and ``duplicate_of`` filled in for duplicates."""
    reasons = {EXACT: "same_text", NEAR: "similar_text"}
    columns = [name for name in DROPPED_SCHEMA.names if name != "duplicate_of"] + ["row", "raw_bytes"]
    with pq.ParquetFile(pages) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=columns):
            table = pa.Table.from_batches([batch])
            duplicate_of = pa.nulls(len(table), pa.large_string())
            for step, reason in reasons.items():
                at = pc.index_in(table["row"], repeats[step]["row"].combine_chunks())
                is_repeat = pc.is_valid(at)
                first = repeats[step]["first"].take(at)
                names = ids["id"].take(pc.index_in(first, ids["row"].combine_chunks()))
                duplicate_of = pc.if_else(is_repeat, names, duplicate_of)
                table = _set(table, "step", pc.if_else(is_repeat, step, table["step"]))
                table = _set(table, "reason", pc.if_else(is_repeat, reason, table["reason"]))
            yield table.append_column("duplicate_of", duplicate_of)


def _set(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def _count(table: pa.Table, funnel: Funnel) -> None:
    columns = ("step", "reason", "language", "raw_bytes", "bytes", "words")
    for step, reason, language, raw, text, words in zip(*(table[c].to_pylist() for c in columns), strict=True):
        if step is None:
            funnel.keep(language, raw, text, words)
        else:
            funnel.drop(step, reason, raw, text)


def _nothing_left(counts: dict[str, Any]) -> InputError:
    worst = max(counts["steps"], key=lambda step: step["documents_dropped"])
    reasons = ", ".join(f"{reason} {of['documents']:,}" for reason, of in worst["dropped"].items())
    total = counts["input"]["documents"]
    return InputError(
        f"no document is left of {total:,} pages: step {worst['step']} dropped most ({reasons})",
        "Loosen the keys of the recipe's curate section that this step reads, or give other sources",
    )
