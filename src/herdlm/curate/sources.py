"""Where pages come from: WARC, Parquet and JSONL files, by path, glob or URL."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from herdlm.base.errors import InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.gzipped import MAGIC, GzipMembers
from herdlm.curate.page import PAGE_SCHEMA, Page
from herdlm.curate.warc import read_warc

ENDINGS = {
    ".warc": "warc",
    ".warc.gz": "warc",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
}
BATCH_BYTES = 4 << 20
PARQUET_ROWS = 256


@dataclass(frozen=True)
class SourceFile:
    """One file of a crawl. ``name`` is short and different for every file of the crawl; ``bytes`` is its size."""

    filesystem: Any
    path: str
    given: str
    name: str
    format: str
    bytes: int

    def open(self) -> BinaryIO:
        return cast(BinaryIO, self.filesystem.open(self.path, "rb"))


def find_sources(sources: Sequence[str], config: CurateConfig) -> list[SourceFile]:
    """The files that paths, globs and URLs name, in the order given and sorted within a glob; none twice.

    Raises:
        InputError: no source is given, a source does not exist or is empty, its format is unknown, or its kind of
            address needs a package that is not installed.
    """
    if not sources:
        raise InputError("no source to curate", "Name at least one WARC, Parquet or JSONL file, glob or URL")
    found: dict[tuple[str, str], tuple[Any, str, int]] = {}
    for source in sources:
        for filesystem, path, size in _matches(source):
            found.setdefault((type(filesystem).__name__, path), (filesystem, source, size))
    paths = [path for _, path in found]
    return [
        SourceFile(filesystem, path, source, name, _format(path, config), size)
        for ((_, path), (filesystem, source, size)), name in zip(found.items(), _short_names(paths), strict=True)
    ]


def _matches(source: str) -> list[tuple[Any, str, int]]:
    try:
        filesystem, path = fsspec.core.url_to_fs(source)
        may_be_glob = any(sign in source for sign in "*?[") and not source.startswith(("http://", "https://"))
        is_glob = may_be_glob and not filesystem.exists(path)  # a folder may be called "d[1]"
        paths = sorted(p for p in filesystem.glob(path) if not filesystem.isdir(p)) if is_glob else [path]
        if not paths:
            raise InputError(f"source {source} matches no file", "Check the pattern")
        infos = [(p, filesystem.info(p)) for p in paths]
    except FileNotFoundError as error:
        raise InputError(f"source {source} does not exist", "Check the path or address") from error
    except (ImportError, OSError, ValueError) as error:
        raise InputError(f"source {source} cannot be read: {_one_line(error)}", "Check the address") from error
    for path, info in infos:
        if info["type"] == "directory":
            raise InputError(f"source {source} is a folder", f"Name its files, say {source.rstrip('/')}/*.warc.gz")
        if info["size"] == 0:
            raise InputError(f"source {path} is empty", "Remove it or fetch it again")
    return [(filesystem, path, info["size"] or 0) for path, info in infos]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _format(path: str, config: CurateConfig) -> str:
    if config.format != "auto":
        return config.format
    lower = path.lower()
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if lower.endswith(ending):
            return ENDINGS[ending]
    raise InputError(
        f"source {path} has no known format: its name ends in none of {', '.join(ENDINGS)}",
        "Rename it, or set curate.format to warc, parquet or jsonl",
    )


def _short_names(paths: Sequence[str]) -> list[str]:
    """Every path's last parts: one, and more only where files would otherwise share a name."""
    parts = [PurePosixPath(path).parts for path in paths]
    length = [1] * len(paths)
    while True:
        names = ["/".join(p[-n:]) for p, n in zip(parts, length, strict=True)]
        shared = {name for name, count in Counter(names).items() if count > 1}
        longer = [i for i, name in enumerate(names) if name in shared and length[i] < len(parts[i])]
        if not longer:
            return names
        for i in longer:
            length[i] += 1


def read_batches(
    files: Sequence[SourceFile], config: CurateConfig, pages_per_batch: int
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The pages of all files in order as batches of ``PAGE_SCHEMA``, each with the bytes of its payloads.

    Raises:
        InputError: while reading: a file is not what its format says, is cut off, or holds no pages.
    """
    rows: list[dict[str, Any]] = []
    size = row = 0
    for file in files:
        position = 0
        for number, (page, reached) in enumerate(_pages(file, config)):
            rows.append(
                {
                    "row": row,
                    "id": f"{file.name}#{number}",
                    "source": file.name,
                    "url": page.url,
                    "date": page.date,
                    "payload": page.payload,
                    "charset": page.charset,
                    "html": page.html,
                    "fault": page.fault,
                    "read_bytes": reached - position,
                }
            )
            row, size, position = row + 1, size + len(page.payload), reached
            if len(rows) >= pages_per_batch or size >= BATCH_BYTES:
                yield pa.RecordBatch.from_pylist(rows, schema=PAGE_SCHEMA), size
                rows, size = [], 0
        if rows:
            rows[-1]["read_bytes"] += file.bytes - position
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=PAGE_SCHEMA), size


def _pages(file: SourceFile, config: CurateConfig) -> Iterator[tuple[Page, int]]:
    """A file's pages, each with how many of the file's bytes have been read."""
    try:
        with file.open() as opened:
            if file.format == "parquet":
                yield from _read_parquet(opened, file, config)
                return
            reader = read_warc if file.format == "warc" else _read_jsonl
            for page in reader(opened, file.path, config):
                yield page, opened.tell()
    except FileNotFoundError as error:
        raise InputError(f"source {file.path} does not exist any more", "Check the path or address") from error
    except (pa.ArrowInvalid, OSError) as error:
        remedy = "Check that it is whole and of that format"
        raise InputError(f"source {file.path} cannot be read as {file.format}: {_one_line(error)}", remedy) from error


def _read_jsonl(file: BinaryIO, name: str, config: CurateConfig) -> Iterator[Page]:
    """One page per line. A line that is no JSON object with text costs that page (damaged_record, no_text)."""
    start = file.read(len(MAGIC))
    file.seek(0)
    members = GzipMembers(file, name) if start == MAGIC else None
    lines = io.BufferedReader(members, buffer_size=1 << 18) if members else file
    usable = 0
    for line in lines:
        if line.strip():
            page = _json_page(line, config)
            usable += page.fault is None
            yield page
    if members and members.damaged:
        raise InputError(f"{name} is damaged: a gzip checksum does not hold", "Fetch or compress the file again")
    if not usable:
        raise InputError(
            f"{name} holds no pages: no line is a JSON object with text under {config.text_column!r}",
            "Set curate.text_column to the key that holds the text, or curate.format to what the file is",
        )


def _json_page(line: bytes, config: CurateConfig) -> Page:
    try:
        fields = json.loads(line)
    except ValueError:
        return Page(line, html=False, fault="damaged_record")
    if not isinstance(fields, dict) or not isinstance(fields.get(config.text_column), str):
        return Page(line, html=False, fault="no_text")
    return _text_page(fields, config)


def _text_page(fields: dict[str, Any], config: CurateConfig) -> Page:
    url, date = (str(fields.get(key) or "") for key in (config.url_column, config.date_column))
    payload = fields[config.text_column].encode("utf-8", "surrogatepass")
    fault = "too_large" if len(payload) > config.max_page_bytes else None
    return Page(payload, url, date, "utf-8", html=False, fault=fault)


def _read_parquet(file: BinaryIO, source: SourceFile, config: CurateConfig) -> Iterator[tuple[Page, int]]:
    parquet = pq.ParquetFile(file)
    present = parquet.schema_arrow.names
    if config.text_column not in present:
        raise InputError(
            f"{source.path} has no column {config.text_column!r}; it has {', '.join(present)}",
            "Set curate.text_column to the one that holds the text",
        )
    kind = parquet.schema_arrow.field(config.text_column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(f"{source.path}: column {config.text_column!r} is {kind}, not text", "Name a text column")
    total = parquet.metadata.num_rows
    if not total:
        raise InputError(f"{source.path} holds no pages: it has no rows", "Remove it from the sources")
    wanted = [c for c in (config.text_column, config.url_column, config.date_column) if c in present]
    done = 0
    for batch in parquet.iter_batches(batch_size=PARQUET_ROWS, columns=wanted):
        for fields in batch.to_pylist():
            done += 1
            has_text = fields[config.text_column] is not None
            page = _text_page(fields, config) if has_text else Page(html=False, fault="no_text")
            yield page, source.bytes * done // total
