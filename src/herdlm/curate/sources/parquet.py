"""Reads pages from the rows of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from herdlm.base.errors import InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.sources.columns import names_of, page_of_fields
from herdlm.curate.sources.page import DAMAGED, Page
from herdlm.curate.sources.reach import Reach

BATCH_ROWS = 256
BATCH_BYTES = 16 << 20


def check_schema(schema: pa.Schema, name: str, config: CurateConfig) -> None:
    """Check that a file has the columns that the configuration names.

    Raises:
        InputError: The column with the text is missing or not text, or another one is missing.
    """
    for key in ("text_column", "url_column", "date_column"):
        column = getattr(config, key)
        if column and _type(schema, column) is None:
            raise InputError(
                f"{name} has no column {column!r}; it has {', '.join(_paths(schema))}",
                f"Set curate.{key} to the one that holds the {key.removesuffix('_column')}",
            )
    kind = _type(schema, config.text_column)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise InputError(f"{name}: column {config.text_column!r} is {kind}, not text", "Name a text column")


def wanted_columns(schema: pa.Schema, config: CurateConfig) -> list[str]:
    """Return the columns to read, nested ones as paths."""
    urls, dates = names_of(config)
    return [column for column in (config.text_column, *urls, *dates) if _type(schema, column) is not None]


def _type(schema: pa.Schema, column: str) -> Any:
    """Return the type of a column or of a nested one, or None."""
    if column in schema.names:
        return schema.field(column).type
    name, dot, rest = column.partition(".")
    outer = schema.field(name).type if dot and name in schema.names else None
    return _type(pa.schema(list(outer)), rest) if outer is not None and pa.types.is_struct(outer) else None


def _paths(schema: pa.Schema) -> list[str]:
    return [
        path
        for field in schema
        for path in (
            [f"{field.name}.{inner.name}" for inner in field.type] if pa.types.is_struct(field.type) else [field.name]
        )
    ]


def row_ranges(file: BinaryIO, name: str, size: int, config: CurateConfig) -> list[tuple[int, int, int]]:
    """Return the first row, the end, and the bytes of runs of row groups of about ``size`` bytes.

    Raises:
        InputError: The column with the text is missing or not text, a column that is named is missing, or there are no
            rows.
    """
    parquet = pq.ParquetFile(file)
    check_schema(parquet.schema_arrow, name, config)
    ranges, begin, end, held = [], 0, 0, 0
    for number in range(parquet.metadata.num_row_groups):
        group = parquet.metadata.row_group(number)
        end += group.num_rows
        held += sum(group.column(i).total_compressed_size for i in range(group.num_columns))
        if held >= size:
            ranges.append((begin, end, held))
            begin, held = end, 0
    if end > begin:
        ranges.append((begin, end, held))
    if not ranges:
        raise InputError(f"{name} holds no pages: it has no rows", "Remove it from the sources")
    return ranges


def read_parquet(file: BinaryIO, name: str, reach: Reach, config: CurateConfig) -> Iterator[Page]:
    """Yield a page for each row of ``reach``, numbered by row. Each row of a damaged row group is a damaged_record."""
    parquet = pq.ParquetFile(file)
    columns = wanted_columns(parquet.schema_arrow, config)
    at = 0
    for number in range(parquet.metadata.num_row_groups):
        group = parquet.metadata.row_group(number)
        end = at + group.num_rows
        if at >= reach.begin and end <= reach.end and group.num_rows:
            rows = max(min(BATCH_ROWS, BATCH_BYTES * group.num_rows // max(group.total_byte_size, 1)), 1)
            try:
                for batch in parquet.iter_batches(rows, row_groups=[number], columns=columns):
                    for fields in _rows(batch):
                        reach.at = at
                        damaged = Page(at, kind="text", fault=DAMAGED)
                        yield damaged if fields is None else page_of_fields(at, fields, config)
                        at += 1
            except (pa.ArrowException, OSError):
                yield from (Page(row, kind="text", fault=DAMAGED) for row in range(at, end))
        at = end


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """Yield each row of a batch; None for one with a value that Python has not, such as a time in the year 60000."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        for number in range(batch.num_rows):
            try:
                row: dict[str, Any] | None = batch.slice(number, 1).to_pylist()[0]
            except (ValueError, OverflowError, pa.ArrowException):
                row = None
            yield row
    else:
        yield from rows
