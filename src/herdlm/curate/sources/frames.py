"""Splits a stream of WARC bytes into records, and resynchronizes after damage.

A record is a header, an empty line, a block of Content-Length bytes, and two line ends. Anything else is damaged, and
the next record is searched for from the start of the damaged block. So a wrong length costs one record, and not those
that it would skip.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

from herdlm.curate.sources.page import DAMAGED, TOO_LARGE

READ_BYTES = 1 << 17
HEAD_BYTES = 1 << 16
GAP = b"\r\n\r\n"
_LENGTH = re.compile(rb"^Content-Length[ \t]*:[ \t]*(\d{1,18})[ \t]*\r?$", re.MULTILINE | re.IGNORECASE)
SIGN = GAP + b"WARC/1."  # the start of a record that follows another


@cache
def _header(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"^" + name + rb"[ \t]*:[ \t]*([^\r\n]*)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Frame:
    """A record at ``offset`` of the stream. If it has a ``fault``, its block can be missing."""

    offset: int
    head: bytes = b""
    block: bytes = b""
    fault: str | None = None

    def header(self, name: bytes) -> str:
        """Return the value of a header of the record, or ""."""
        match = _header(name).search(self.head)
        return match[1].decode("utf-8", "replace").strip() if match else ""

    def whole(self) -> bytes:
        """Return the record's bytes."""
        return b"".join((self.head, GAP, self.block, GAP))


def frames(
    read: Callable[[int], bytes], offset: int, limit: int, *, short: str, seek: Callable[[int], object] | None = None
) -> Iterator[Frame]:
    """Yield the records of a stream whose first byte is at ``offset``.

    Args:
        limit: Longer blocks are skipped without holding them.
        short: The fault of a record that the end of the stream cuts off.
        seek: Goes to an offset, if the stream can. Needed to recover from a length that is far too large.
    """
    window = _Window(read, offset)
    while window.skip_line_ends():
        start = window.offset
        if not window.has(b"WARC/"):
            yield Frame(start, fault=DAMAGED)
            if not window.find_record():
                return
            continue
        size = window.index(GAP, HEAD_BYTES)
        head = window.buffer[: max(size, 0)]
        length = _content_length(head)
        if size < 0 or length is None:
            found = window.find_record(1)
            yield Frame(start, head, fault=DAMAGED if size >= 0 or found else short)
            if not found:
                return
            continue
        window.drop(size + len(GAP))
        if length > limit:
            yield Frame(start, head, fault=_pass_over(window, length, short, seek))
        elif window.ensure(length) and window.ends_record(length):
            yield Frame(start, head, window.buffer[:length])
            window.drop(length)
        else:
            cut = len(window.buffer) < length
            found = window.find_record()
            yield Frame(start, head, fault=short if cut and not found else DAMAGED)
            if not found:
                return


def find_frame(file: BinaryIO, offset: int) -> int | None:
    """Return where the first record at or after ``offset`` starts in a plain file, or None."""
    begin = max(offset - len(GAP), 0)
    file.seek(begin)
    window = _Window(file.read, begin)
    return window.offset if window.find_record() else None


def _pass_over(window: _Window, length: int, short: str, seek: Callable[[int], object] | None) -> str:
    """Skip a block that is too large to hold, and return its fault."""
    sign, whole = window.skip(length)
    if whole and window.ends_record(0):
        return TOO_LARGE
    if sign is not None and seek is not None:
        with suppress(OSError):  # the stream cannot seek
            seek(sign)
            window.restart(sign)
            return DAMAGED
    window.find_record()
    return DAMAGED if whole else short


def _content_length(head: bytes) -> int | None:
    match = _LENGTH.search(head)
    return int(match[1]) if match else None


class _Window:
    """The current part of the stream, whose first byte is at ``offset``."""

    def __init__(self, read: Callable[[int], bytes], offset: int) -> None:
        self.read, self.offset = read, offset
        self.buffer = b""

    def restart(self, offset: int) -> None:
        self.buffer, self.offset = b"", offset

    def drop(self, count: int) -> None:
        self.buffer = self.buffer[count:]
        self.offset += count

    def fill(self) -> bool:
        piece = self.read(READ_BYTES)
        self.buffer += piece
        return bool(piece)

    def ensure(self, count: int) -> bool:
        """Hold at least ``count`` bytes, and return whether the stream has as many."""
        if len(self.buffer) >= count:
            return True
        pieces, size = [self.buffer], len(self.buffer)
        while size < count and (piece := self.read(READ_BYTES)):
            pieces.append(piece)
            size += len(piece)
        self.buffer = b"".join(pieces)
        return size >= count

    def has(self, start: bytes) -> bool:
        return self.ensure(len(start)) and self.buffer.startswith(start)

    def skip_line_ends(self) -> bool:
        """Skip line ends, and return whether anything follows."""
        while True:
            rest = self.buffer.lstrip(b"\r\n")
            self.drop(len(self.buffer) - len(rest))
            if rest:
                return True
            if not self.fill():
                return False

    def index(self, sign: bytes, within: int) -> int:
        """Return where ``sign`` is in the next ``within`` bytes, or -1."""
        while (at := self.buffer.find(sign, 0, within)) < 0 and len(self.buffer) < within and self.fill():
            pass
        return at

    def ends_record(self, at: int) -> bool:
        """Return whether a record ends after ``at`` bytes: with two line ends, or with the stream."""
        self.ensure(at + len(GAP))
        after = self.buffer[at : at + len(GAP)]
        return after == GAP or (len(after) < len(GAP) and GAP.startswith(after))

    def find_record(self, skip: int = 0) -> bool:
        """Go to the start of the next record after two line ends, and return whether there is one."""
        self.drop(skip)
        while (at := self.buffer.find(SIGN)) < 0:
            self.drop(max(len(self.buffer) - len(SIGN) + 1, 0))
            if not self.fill():
                self.drop(len(self.buffer))
                return False
        self.drop(at + len(GAP))
        return True

    def skip(self, count: int) -> tuple[int | None, bool]:
        """Skip ``count`` bytes. Return where a record seems to start in them, and whether there were as many."""
        sign: int | None = None
        while True:
            if sign is None and (at := self.buffer.find(SIGN, 0, count + len(SIGN))) >= 0:
                sign = self.offset + at + len(GAP)
            if len(self.buffer) >= count:
                self.drop(count)
                return sign, True
            passed = max(len(self.buffer) - len(SIGN) + 1, 0)
            self.drop(passed)
            count -= passed
            if not self.fill():
                self.drop(len(self.buffer))
                return sign, False
