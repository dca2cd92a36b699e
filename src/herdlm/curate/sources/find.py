"""Finds the files that sources name: paths, globs, addresses, lists of paths, and folders of source code."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from herdlm.base.errors import InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.sources.columns import for_file
from herdlm.curate.sources.datasets import data_files
from herdlm.curate.sources.file import SourceFile, one_line
from herdlm.curate.sources.source_code import language_of, members_of

ENDINGS = {
    ".warc": "warc",
    ".warc.gz": "warc",
    ".warc.zst": "warc",
    ".wet": "warc",
    ".wet.gz": "warc",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".jsonl.zst": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
    ".ndjson.zst": "jsonl",
    ".json.gz": "jsonl",
    ".json.zst": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "text",
    ".md": "text",
    ".rst": "text",
}
LISTS = (".paths", ".paths.gz")
PREFIX = "crawl-data/"  # the start of each path in a Common Crawl list
REQUESTS = 32  # at once, to get the sizes of the files of a list


def find_sources(sources: Sequence[str], config: CurateConfig) -> list[SourceFile]:
    """Return the files that sources name, in the given order and sorted within a glob, without repetitions.

    A name that ends in ``.paths`` or ``.paths.gz`` is a list of files, one per line, as Common Crawl publishes them. A
    folder is a tree of source code.

    Raises:
        InputError: No source is given, a source does not exist or is empty, its format is unknown, or its kind of
            address needs a package that is not installed.
    """
    if not sources:
        raise InputError("no source to curate", "Name at least one file, glob, address or folder of source code")
    found: dict[tuple[str, str], tuple[str, Any, dict[str, Any]]] = {}
    for source in sources:
        for filesystem, path, info in _matches(source):
            found.setdefault((type(filesystem).__name__, path), (source, filesystem, info))
    paths = [path for _, path in found]
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise InputError(f"the name of source {path!a} is not UTF-8", "Rename the file") from None
    return [
        _source_file(filesystem, path, info, given=source, name=name, config=config)
        for ((_, path), (source, filesystem, info)), name in zip(found.items(), _short_names(paths), strict=True)
    ]


def _source_file(
    filesystem: Any, path: str, info: dict[str, Any], *, given: str, name: str, config: CurateConfig
) -> SourceFile:
    folder = info["type"] == "directory"
    size = int(info.get("size") or 0)
    if not folder and info.get("size") == 0:
        raise InputError(f"source {path} is empty", "Remove it or fetch it again")
    remote = path.startswith(("http://", "https://"))
    seekable = not remote or (size > 1 and _serves_parts(filesystem, path, "/".join(path.split("/")[:3])))
    marks = [str(info[key]) for key in ("mtime", "ETag", "etag", "LastModified", "created") if info.get(key)]
    local = Path(path)
    identity = str(local.stat().st_mtime_ns) if local.exists() else " ".join(marks)
    form = "code" if folder else _format(path, for_file(path, given, config))
    return SourceFile(filesystem, path, given, name, form, size, f"{size} {identity}", seekable)


_serving: dict[str, bool] = {}  # host -> whether it serves parts of files


def _serves_parts(filesystem: Any, path: str, host: str) -> bool:
    """Return whether a web server serves parts of files. It is tested once, since headers are unreliable."""
    if host not in _serving:
        try:
            with filesystem.open(path, "rb", cache_type="none") as file:
                file.seek(1)
                _serving[host] = len(file.read(1)) == 1
        except (ValueError, OSError):
            _serving[host] = False
    return _serving[host]


def _matches(source: str) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Yield the filesystem, path and info of every file that ``source`` names."""
    try:
        filesystem, path = fsspec.core.url_to_fs(source)
        may_be_glob = any(sign in source for sign in "*?[") and not source.startswith(("http://", "https://"))
        is_glob = may_be_glob and not filesystem.exists(path)  # a folder can be called "d[1]"
        paths = sorted(p for p in filesystem.glob(path) if not filesystem.isdir(p)) if is_glob else [path]
        if not paths:
            raise InputError(f"source {source} matches no file", "Check the pattern")
        for one in paths:
            if one.lower().endswith(LISTS):
                yield from _listed(filesystem, one, source)
                continue
            info = filesystem.info(one)
            files = _of_dataset(filesystem, one) if info["type"] == "directory" else []
            yield from ((filesystem, path, filesystem.info(path)) for path in files or [one])
    except FileNotFoundError as error:
        raise InputError(f"source {source} does not exist", "Check the path or address") from error
    except (ImportError, OSError, ValueError) as error:
        raise InputError(f"source {source} cannot be read: {one_line(error)}", "Check the address") from error


def _of_dataset(filesystem: Any, folder: str) -> list[str]:
    """Return the data files of a folder that is a dataset, or an empty list if it is one of source code."""
    found = data_files(filesystem, folder.rstrip("/"), members_of(filesystem, folder), _is_data, language_of)
    return [f"{folder.rstrip('/')}/{name}" for name in found]


def _is_data(path: str) -> bool:
    return path.lower().endswith(tuple(ending for ending, of in ENDINGS.items() if of != "text"))


def _listed(filesystem: Any, path: str, source: str) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Yield the files of a list. A path is relative to the parent of ``crawl-data/``, or else to the list's folder."""
    try:
        content = filesystem.cat_file(path)
        lines = (gzip.decompress(content) if path.lower().endswith(".gz") else content).decode().split("\n")
    except (zlib.error, EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise InputError(f"list of files {path} cannot be read: {one_line(error)}", "Fetch it again") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"list of files {path} is empty", "Give a list with a path on each line")
    above, mark, _ = source.rpartition(PREFIX)
    folder = source.rpartition("/")[0]

    def locate(name: str) -> tuple[Any, str, dict[str, Any]]:
        root = above if mark and name.startswith(PREFIX) else f"{folder}/" if folder else ""
        address = name if "://" in name or name.startswith("/") else f"{root}{name}"
        try:
            there, at = fsspec.core.url_to_fs(address)
            return there, at, there.info(at)
        except FileNotFoundError as error:
            raise InputError(f"{address}, listed in {path}, does not exist", "Check the list") from error

    with ThreadPoolExecutor(REQUESTS) as threads:
        yield from threads.map(locate, names)


def _format(path: str, config: CurateConfig) -> str:
    if config.format != "auto":
        return config.format
    lower = path.lower()
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if lower.endswith(ending):
            return ENDINGS[ending]
    raise InputError(
        f"source {path} has an unknown format: its name does not end in {', '.join(ENDINGS)}",
        "Rename it, or set curate.format to warc, parquet, jsonl, arrow or text",
    )


def _short_names(paths: Sequence[str]) -> list[str]:
    """Return the last parts of every path: one, or as many as make the names unique."""
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
