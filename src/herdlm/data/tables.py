"""Reads the rows of CSV and Parquet files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from herdlm.base.errors import DamagedError, InputError
from herdlm.data.row import Rename, Row, RowError, bad_text, make_row

MAX_CELL = 32 << 20  # characters


def table_rows(path: Path, texts: Iterator[str], delimiter: str | None, rename: Rename) -> Iterator[Row | RowError]:
    """Rows of a CSV file with a line of names; without a delimiter, it is the more frequent of comma and semicolon."""
    csv.field_size_limit(MAX_CELL)
    header = next((line for line in texts if line.strip()), None)
    if header is None:
        raise InputError(f"{path} is empty", "Give a file with a line of names and rows")
    delimiter = delimiter or (";" if header.count(";") > header.count(",") else ",")
    reader = csv.reader(_chained(header, texts), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader)]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{path}, line 1: the column {twice!r} stands twice", "Rename one of them")
        before = reader.line_num
        for cells in reader:
            place, before = f"line {before + 1}", reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                problem = f"it has {len(cells)} cells where line 1 names {len(names)} columns"
                yield RowError(path, place, "", problem, "Put quotation marks around cells with commas or line breaks")
            else:
                yield make_row(path, place, dict(zip(names, cells, strict=True)), rename)
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: it is not CSV: {error}", "Correct the line") from error


def _chained(header: str, texts: Iterator[str]) -> Iterator[str]:
    yield header
    yield from texts


def parquet_rows(path: Path, rename: Rename) -> Iterator[Row | RowError]:
    """Rows of a Parquet file. Its nulls stand for missing keys, also inside structures."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(
            f"{path} is Parquet, and the package pyarrow is not installed", "pip install 'herdlm[curate]'"
        ) from None
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(256):
                for value in map(_filled, batch.to_pylist()):
                    number += 1
                    place = f"row {number}"
                    bad = bad_text(value)
                    if bad:
                        yield RowError(path, place, bad[0], bad[1], "Delete it")
                    else:
                        yield make_row(path, place, value, rename)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, row {number + 1} or after: a text is not UTF-8", "Convert it") from error
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(f"{path} is not a whole Parquet file: {error}", "Download or copy it again") from error


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items() if item is not None}
    return [_filled(item) for item in value] if isinstance(value, list) else value
