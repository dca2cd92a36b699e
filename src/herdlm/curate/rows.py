"""Reads rows of corpora, labels and benchmarks from JSONL (also .gz) and Parquet files."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError

BATCH_ROWS = 1024
_PARQUET, _JSONL = (".parquet",), (".jsonl", ".ndjson", ".json")


def corpus_files(corpus: Path) -> list[Path]:
    """Return the files of a corpus in order: a file, or a folder's ``documents.parquet`` or ``documents/*.parquet``.

    Raises:
        InputError: There is no such corpus.
    """
    if corpus.is_file():
        return [corpus]
    files = [p for p in [corpus / "documents.parquet"] if p.is_file()] or sorted(
        (corpus / "documents").glob("*.parquet")
    )
    if not files:
        raise InputError(
            f"{corpus} is not a corpus: it has neither documents.parquet nor documents/*.parquet",
            "Give a folder that curation made, or a Parquet or JSONL file with the columns id and text",
        )
    return files


def read_corpus(corpus: Path, columns: Sequence[str] = ("id", "text")) -> Iterator[dict[str, Any]]:
    """Yield the documents of a corpus in order, with ``columns`` and ``language`` ("" if it has none).

    Raises:
        InputError: It is missing, cannot be read, or lacks a column.
    """
    for file in corpus_files(corpus):
        for row in read_rows(file, columns, optional=("language",)):
            yield row | {"language": row["language"] or ""}


def read_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file as dicts of ``columns`` and ``optional``, which are None if a row lacks them.

    Raises:
        InputError: The file is missing, damaged or has another format, or a row lacks a column. The error names file
            and row.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist", "Check the path")
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if ending in _PARQUET and path.suffix != ".gz":
        yield from _parquet_rows(path, columns, optional)
    elif ending in _JSONL:
        yield from _jsonl_rows(path, columns, optional)
    else:
        raise InputError(f"{path} is not named as a JSONL (also .gz) or Parquet file", "Rename or convert it")


def _jsonl_rows(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise InputError(f"{path}, line {number}: is not a JSON object", "Correct or remove that line")
                for column in columns:
                    if row.get(column) is None:
                        raise InputError(
                            f"{path}, line {number}: has no {column}", f"It has {', '.join(map(str, row))}"
                        )
                yield {column: row.get(column) for column in (*columns, *optional)}
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}", "It seems damaged or truncated: make it again") from error
    except (ValueError, RecursionError) as error:  # of JSON: also numbers of thousands of digits
        raise InputError(f"{path}, line {number}: is not JSON: {error}", "Correct or remove that line") from error


def _parquet_rows(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for column in columns:
                if column not in names:
                    raise InputError(f"{path} has no column {column}", f"It has {', '.join(names)}")
            wanted = [*columns, *(c for c in optional if c in names)]
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    for column in columns:
                        if row[column] is None:
                            raise InputError(f"{path}, row {number}: has no {column}", "Correct or remove that row")
                    yield {column: row.get(column) for column in (*columns, *optional)}
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path} cannot be read: {error}", "It seems damaged or truncated: make it again") from error
