"""Reads pages from JSON Lines files, plain, gzipped or compressed with Zstandard."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from herdlm.curate.config import CurateConfig
from herdlm.curate.sources.gzipped import CutOffError, DamageError, GzipMembers
from herdlm.curate.sources.page import CUT_OFF, DAMAGED, NO_TEXT, TOO_LARGE, Page
from herdlm.curate.sources.reach import Reach

READ_BYTES = 1 << 17
ESCAPED = 6  # bytes of JSON that a byte of text can take, as \u0041


def is_plain(path: str) -> bool:
    """Return whether a file is not compressed, so that it can be entered at any line."""
    return not path.lower().endswith((".gz", ".zst"))


def read_jsonl(file: BinaryIO, name: str, reach: Reach, config: CurateConfig) -> Iterator[Page]:
    """Yield a page for each line that starts in ``reach``.

    Its number is the line's offset in a plain file, and a running number in a compressed one. A line that is not a JSON
    object with text costs that page: damaged_record, no_text, too_large. A line that the end of a compressed file cuts
    is cut_off.
    """
    if not is_plain(name):
        read = _gzip_reader(file) if name.lower().endswith(".gz") else _zstd_reader(file)
        for number, (_, line) in enumerate(_lines(read, 0, config)):
            reach.at = number
            if isinstance(line, str) or line.strip():
                yield _page(number, line, config)
        return
    begin = reach.begin
    if begin:  # the line that crosses into the range belongs to the range before
        file.seek(begin - 1)
        lines = _lines(file.read, begin - 1, config)
        next(lines, None)
    else:
        lines = _lines(file.read, 0, config)
    for offset, line in lines:
        if offset >= reach.end:
            return
        reach.at = offset
        if isinstance(line, str) or line.strip():
            yield _page(offset, line, config)


def _lines(read: Callable[[int], bytes | str], offset: int, config: CurateConfig) -> Iterator[tuple[int, bytes | str]]:
    """Yield the offset and line of each line of a stream, or a fault in place of the line.

    The last line can lack its line end.
    """
    limit = ESCAPED * config.max_page_bytes
    rest, passed = b"", 0  # of the current line: the part that is held, and the number of bytes before it
    while True:
        piece = read(READ_BYTES)
        if isinstance(piece, str) or not piece:
            break
        *lines, tail = piece.split(b"\n")
        for line in lines:
            yield offset, TOO_LARGE if passed else rest + line
            offset += passed + len(rest) + len(line) + 1
            rest, passed = b"", 0
        rest += tail
        if passed or len(rest) > limit:
            rest, passed = b"", passed + len(rest)
    if isinstance(piece, str):
        yield offset, piece
    elif rest or passed:
        yield offset, TOO_LARGE if passed else rest


def _gzip_reader(file: BinaryIO) -> Callable[[int], bytes | str]:
    """Reads across gzip members. Returns a fault where it cannot go on."""
    members = GzipMembers(file, held_bytes=0)  # lines before the damage are good

    def read(size: int) -> bytes | str:
        try:
            while not (piece := members.read(size)):
                if members.next_offset() is None:
                    return b""
        except DamageError:
            return DAMAGED
        except CutOffError:
            return CUT_OFF
        return piece

    return read


def _zstd_reader(file: BinaryIO) -> Callable[[int], bytes | str]:
    stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")

    def read(size: int) -> bytes | str:
        try:
            piece: bytes = stream.read(size)
        except OSError as error:
            return CUT_OFF if "truncated" in str(error).lower() else DAMAGED
        return piece

    return read


def _page(number: int, line: bytes | str, config: CurateConfig) -> Page:
    if isinstance(line, str):
        return Page(number, kind="text", fault=line)
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return Page(number, line, kind="text", fault=DAMAGED)
    if not isinstance(fields, dict):
        return Page(number, line, kind="text", fault=NO_TEXT)
    return page_of_fields(number, fields, config)


def page_of_fields(number: int, fields: dict[str, Any], config: CurateConfig) -> Page:
    """Return the page of a row with named columns."""
    text = fields.get(config.text_column)
    try:
        url, date = (str(fields.get(key) or "") for key in (config.url_column, config.date_column))
    except (ValueError, RecursionError):  # a number of thousands of digits
        return Page(number, kind="text", fault=DAMAGED)
    if not isinstance(text, str):
        return Page(number, url=url, date=date, kind="text", fault=NO_TEXT)
    payload = text.encode("utf-8", "surrogatepass")
    fault = TOO_LARGE if len(payload) > config.max_page_bytes else None
    return Page(number, payload, url, date, "utf-8", kind="text", fault=fault)
