"""Reads the rows of JSON and JSON Lines files, gzipped or not, and passes CSV and Parquet to :mod:`tables`.

What a file holds is decided by its content, since names lie: ``.json`` files often hold JSON Lines, and the other way
round. JSON Lines are streamed.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from herdlm.base.errors import DamagedError, InputError
from herdlm.data.row import IsRow, Rename, Row, RowError, bad_text, kind_of, make_row, parse_json
from herdlm.data.tables import parquet_rows, table_rows

MAX_LINE = 32 << 20  # bytes
MAX_JSON = 1 << 30  # bytes of a file that is one JSON value, which is read whole
BOMB_BYTES, BOMB_RATIO = 64 << 20, 400  # text compresses a hundredfold at most
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
BOM = b"\xef\xbb\xbf"
LINES = (".jsonl", ".ndjson")


def read_rows(path: Path, *, rename: Rename | None = None, is_row: IsRow) -> Iterator[Row | RowError]:
    """Yield each row of a file, or the error of a row that cannot be read.

    Args:
        rename: columns' names in the file by the names that herdlm knows.
        is_row: whether an object has a known form; a file with one object is that row, or else an envelope of rows.

    Raises:
        InputError: the file is missing, empty, or of no known type.
        DamagedError: the file is cut short.
    """
    renamed = rename or {}
    if path.is_dir():
        raise InputError(f"{path} is a folder", "Name the files in it, such as FOLDER/*.jsonl")
    if not path.is_file():
        raise InputError(f"{path} does not exist", "Check the path")
    with path.open("rb") as file:
        start = file.read(4)
    if start == PARQUET or path.suffix == ".parquet":
        yield from parquet_rows(path, renamed)
    elif _suffix(path) in (".csv", ".tsv"):
        yield from table_rows(path, _texts(path), "\t" if _suffix(path) == ".tsv" else None, renamed)
    else:
        yield from _json_rows(path, renamed, is_row)


def lines_of(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a file with their numbers from 1, without its BOM; None stands for a line that is too long."""
    number, unpacked, packed = 0, 0, path.stat().st_size
    with _opened(path) as file:
        while line := file.readline(MAX_LINE):
            number += 1
            unpacked += len(line)
            if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * packed:
                raise InputError(
                    f"{path} unpacks to more than {BOMB_RATIO} times its size by line {number}, which text does not",
                    "Check where the file comes from",
                )
            if number == 1:
                if line.startswith(UTF16) or (line[:1] == b"\0" or line[1:2] == b"\0"):
                    raise InputError(f"{path}, line 1: the file is UTF-16, not UTF-8", "Convert it to UTF-8")
                line = line.removeprefix(BOM)
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    unpacked += len(rest)
                    if unpacked > MAX_JSON:
                        raise InputError(f"{path}, line {number} is longer than {MAX_JSON:,} bytes", "Divide it")
                yield number, None
            else:
                yield number, line


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """The unpacked bytes of a file."""
    with path.open("rb") as raw:
        packed = raw.read(2) == GZIP
        raw.seek(0)
        try:
            if packed:
                with gzip.open(raw) as file:
                    yield file
            else:
                yield raw
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DamagedError(f"{path} is not whole: {error}", "Download or copy it again") from error


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix == ".gz" else path.name).suffix.lower()


def decode(path: Path, number: int, line: bytes | None) -> str | RowError:
    """A line as text, or what is wrong with it."""
    place = f"line {number}"
    if line is None:
        return RowError(path, place, "", f"it has more than {MAX_LINE:,} bytes", "Divide or delete it")
    if b"\0" in line:
        return RowError(path, place, "", "it holds a NUL byte", "Convert the file to UTF-8, or delete the line")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        return RowError(path, place, "", f"byte {error.start + 1} is not UTF-8", "Convert the file to UTF-8")


def _texts(path: Path) -> Iterator[str]:
    for number, line in lines_of(path):
        text = decode(path, number, line)
        if isinstance(text, RowError):
            raise text
        yield text


def _json_rows(path: Path, rename: Rename, is_row: IsRow) -> Iterator[Row | RowError]:
    """Rows of JSON Lines, of an array, or of an object that holds one list of them."""
    head = [line for _, line in zip(range(2), _filled(path), strict=False)]
    if not head:
        raise InputError(f"{path} is empty", "Give a file with rows")
    first = (head[0][1] or b"{").lstrip()
    if first[:1] not in (b"[", b"{") and _suffix(path) not in (*LINES, ".json"):
        raise InputError(
            f"{path}, line {head[0][0]}: the file is not JSON, JSON Lines, CSV or Parquet",
            "Convert it; a CSV file's name must end with .csv",
        )
    whole = first[:1] == b"[" or (_suffix(path) not in LINES and not (len(head) > 1 and _is_object(first)))
    if not whole:
        for number, line in lines_of(path):
            text = decode(path, number, line)
            if isinstance(text, RowError):
                yield text
            elif text.strip():
                yield _json_row(path, number, text, rename)
        return
    text = _whole(path)
    try:
        value = parse_json(text)
    except json.JSONDecodeError as error:
        yield RowError(path, f"line {error.lineno}", "", f"the file is not JSON: {error.msg}", "Correct the line")
        return
    except ValueError as error:
        raise InputError(f"{path}: {error}", "Correct it") from error
    for number, item in enumerate(_listed(path, value, rename, is_row), 1):
        yield _checked(path, f"row {number}", item, rename)


def _filled(path: Path) -> Iterator[tuple[int, bytes | None]]:
    return ((number, line) for number, line in lines_of(path) if line is None or line.strip())


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _whole(path: Path) -> str:
    parts, size = [], 0
    for number, line in lines_of(path):
        text = decode(path, number, line)
        if isinstance(text, RowError):
            raise text
        size += len(text)
        if size > MAX_JSON:
            raise InputError(f"{path} is one JSON value of more than {MAX_JSON:,} bytes", "Write it as JSON Lines")
        parts.append(text)
    return "".join(parts)


def _json_row(path: Path, number: int, text: str, rename: Rename) -> Row | RowError:
    place = f"line {number}"
    try:
        value = parse_json(text)
    except ValueError as error:
        return RowError(path, place, "", f"it is not JSON: {error}", "Correct or delete it")
    return _checked(path, place, value, rename, suspect="\\u" in text)


def _checked(path: Path, place: str, value: Any, rename: Rename, *, suspect: bool = True) -> Row | RowError:
    bad = bad_text(value) if suspect else None  # UTF-8 holds no surrogates: they come from escapes only
    if bad:
        return RowError(path, place, bad[0], bad[1], "Write the whole character, or delete it")
    return make_row(path, place, value, rename)


def _listed(path: Path, value: Any, rename: Rename, is_row: IsRow) -> list[Any]:
    """The rows of a JSON value: an array's items, an object as one row, or the items of its only list of objects."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        row = make_row(path, "row 1", value, rename)
        if isinstance(row, Row) and is_row(row):
            return [value]
        lists = [item for item in value.values() if isinstance(item, list) and item and isinstance(item[0], dict)]
        return lists[0] if len(lists) == 1 else [value]
    raise InputError(f"{path} is {kind_of(value)}, not rows", "Write an array of objects, or JSON Lines")
