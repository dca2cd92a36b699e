"""The Parquet files of curation: their schemas, and a writer whose output depends on the rows alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from herdlm.curate.batch import Batch

ROWS_PER_GROUP = 1024
TEXT_PER_GROUP = 32 << 20  # bytes; a group of long texts has fewer rows

_DOCUMENT = [
    ("id", pa.string()),  # SOURCE#NUMBER, where the number is the page's offset or place in the file
    ("url", pa.string()),
    ("text", pa.large_string()),
    ("language", pa.string()),  # ISO 639, or code- and the programming language
    ("source", pa.string()),
    ("date", pa.string()),  # as given by the source
    ("language_score", pa.float64()),
    ("quality", pa.float64()),
    ("domain", pa.string()),  # the topic
    ("page_type", pa.string()),  # of web pages: article, forum, ...; "" for others
    ("words", pa.int64()),
    ("bytes", pa.int64()),  # of the text in UTF-8
]
DOCUMENT_SCHEMA = pa.schema([*_DOCUMENT, ("contaminated", pa.list_(pa.string()))])  # benchmarks it has examples of
DROPPED_SCHEMA = pa.schema(
    [
        *_DOCUMENT,  # columns that were not set before the document was dropped are null
        ("step", pa.string()),
        ("reason", pa.string()),
        ("duplicate_of", pa.string()),  # the id of the document it repeats, which a later step may have dropped
    ]
)
# What the first pass hands to the others: a row for each page, whose number gives its place in the sources.
PAGE_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        *_DOCUMENT,
        ("kind", pa.string()),
        ("pii", pa.int64()),  # pieces of personal data
        ("dirty_words", pa.int64()),
        ("step", pa.string()),
        ("reason", pa.string()),
        # What corpus steps compare. Null if the page was dropped.
        ("digest", pa.uint64()),
        ("bands", pa.list_(pa.uint64())),
        ("lines", pa.list_(pa.uint64())),
        ("url_key", pa.uint64()),  # null without an address, like the time
        ("time", pa.int64()),
    ]
)
FINGERPRINTS = ("digest", "bands", "lines", "url_key", "time")


class RowWriter:
    """Writes rows to a zstd Parquet file, in groups that depend on the rows alone. The file appears by a rename."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        self.temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self.writer = pq.ParquetWriter(self.temporary, schema, compression="zstd")
        self.pending: Batch = {name: [] for name in schema.names}
        self.held = 0
        self.metadata: dict[str, str] = {}

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
                self.writer.add_key_value_metadata(self.metadata)
        finally:
            self.writer.close()
        if error is None:
            self.temporary.replace(self.path)
        else:
            self.temporary.unlink()

    def write(self, batch: Batch, at: Sequence[int]) -> None:
        """Append the pages ``at`` of a batch, which must have the schema's columns."""
        for i in at:
            for name, values in self.pending.items():
                values.append(batch[name][i])
            self.held += len(batch["text"][i])
            if len(self.pending["text"]) >= ROWS_PER_GROUP or self.held >= TEXT_PER_GROUP:
                self._flush()

    def _flush(self) -> None:
        if self.pending["text"]:
            table = pa.table(
                {field.name: pa.array(self.pending[field.name], field.type) for field in self.schema},
                schema=self.schema,
            )
            self.writer.write_table(table, row_group_size=len(table))
        self.pending = {name: [] for name in self.schema.names}
        self.held = 0
