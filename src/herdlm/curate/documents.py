"""The Parquet files of curation: their columns, and writing that depends on the rows alone."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_PER_GROUP = 1024

DOCUMENT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # source file's name, '#', the page's number in it
        ("url", pa.string()),
        ("text", pa.large_string()),
        ("language", pa.string()),  # ISO 639
        ("source", pa.string()),
        ("date", pa.string()),  # as the source gives it
        ("language_score", pa.float64()),
        ("quality", pa.float64()),
        ("words", pa.int64()),
        ("bytes", pa.int64()),  # of the text in UTF-8
    ]
)
DROPPED_SCHEMA = pa.schema(
    [
        *DOCUMENT_SCHEMA,
        ("step", pa.string()),
        ("reason", pa.string()),
        ("duplicate_of", pa.string()),  # the id of the document it repeats, which a later step may have dropped in turn
    ]
)


class DocumentWriter:
    """Writes rows to a Parquet file (zstd) in groups of ``ROWS_PER_GROUP``, however they come in."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self.writer = pq.ParquetWriter(path, schema, compression="zstd")
        self.pending: list[pa.Table] = []
        self.rows = 0

    def __enter__(self) -> DocumentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
        finally:
            self.writer.close()

    def write(self, table: pa.Table) -> None:
        """Append the schema's columns of a table."""
        self.pending.append(table.select(self.schema.names).cast(self.schema))
        self.rows += len(table)
        if self.rows >= ROWS_PER_GROUP:
            self._flush(whole_groups=True)

    def _flush(self, *, whole_groups: bool = False) -> None:
        table = pa.concat_tables(self.pending) if self.pending else self.schema.empty_table()
        count = len(table) // ROWS_PER_GROUP * ROWS_PER_GROUP if whole_groups else len(table)
        if count:
            self.writer.write_table(table.slice(0, count).combine_chunks(), row_group_size=ROWS_PER_GROUP)
        rest = table.slice(count)
        self.pending, self.rows = [rest], len(rest)
