"""Cuts a stream of WARC bytes into records, and finds its way again after damage.

A record is a head of lines, an empty line, a block of Content-Length bytes, and two line ends. Where that does not hold
the record is damaged, and the next one is looked for from the damaged block's start on, so a wrong length costs one
record and not those that it would swallow.
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
SIGN = GAP + b"WARC/1."  # a record that follows another


@cache
def _header(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"^" + name + rb"[ \t]*:[ \t]*([^\r\n]*)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Frame:
    """One record as it stands in the stream, at ``offset``. Where ``fault`` is set, its block may be missing."""

    offset: int
    head: bytes = b""
    block: bytes = b""
    fault: str | None = None

    def header(self, name: bytes) -> str:
        """The value of a header of the record, "" if it has none."""
        match = _header(name).search(self.head)
        return match[1].decode("utf-8", "replace").strip() if match else ""

    def whole(self) -> bytes:
        """The record's bytes."""
        return b"".join((self.head, GAP, self.block, GAP))


def frames(
    read: Callable[[int], bytes], offset: int, limit: int, *, short: str, seek: Callable[[int], object] | None = None
) -> Iterator[Frame]:
    """The records of a stream whose first byte is at ``offset``.

    Args:
        limit: blocks of more bytes are passed over, never held.
        short: the fault of a record that the stream's end cuts.
        seek: goes to an offset, where the stream can; it helps after a length that is far too large.
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
    """Where the first record at or behind ``offset`` starts in a plain file, or None."""
    begin = max(offset - len(GAP), 0)
    file.seek(begin)
    window = _Window(file.read, begin)
    return window.offset if window.find_record() else None


def _pass_over(window: _Window, length: int, short: str, seek: Callable[[int], object] | None) -> str:
    """Pass a block that is too large to hold; the fault it stands for."""
    sign, whole = window.skip(length)
    if whole and window.ends_record(0):
        return TOO_LARGE
    if sign is not None and seek is not None:
        with suppress(OSError):  # a stream that cannot go back
            seek(sign)
            window.restart(sign)
            return DAMAGED
    window.find_record()
    return DAMAGED if whole else short


def _content_length(head: bytes) -> int | None:
    match = _LENGTH.search(head)
    return int(match[1]) if match else None


class _Window:
    """The part of the stream that is looked at; ``offset`` is its first byte's."""

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
        """Hold at least ``count`` bytes, unless the stream ends before."""
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
        """Pass line ends; whether anything follows."""
        while True:
            rest = self.buffer.lstrip(b"\r\n")
            self.drop(len(self.buffer) - len(rest))
            if rest:
                return True
            if not self.fill():
                return False

    def index(self, sign: bytes, within: int) -> int:
        """Where ``sign`` is in the next ``within`` bytes, or -1."""
        while (at := self.buffer.find(sign, 0, within)) < 0 and len(self.buffer) < within and self.fill():
            pass
        return at

    def ends_record(self, at: int) -> bool:
        """Whether a record ends ``at`` bytes on: with two line ends, or with the stream."""
        self.ensure(at + len(GAP))
        after = self.buffer[at : at + len(GAP)]
        return after == GAP or (len(after) < len(GAP) and GAP.startswith(after))

    def find_record(self, skip: int = 0) -> bool:
        """Go to the start of the next record that follows two line ends."""
        self.drop(skip)
        while (at := self.buffer.find(SIGN)) < 0:
            self.drop(max(len(self.buffer) - len(SIGN) + 1, 0))
            if not self.fill():
                self.drop(len(self.buffer))
                return False
        self.drop(at + len(GAP))
        return True

    def skip(self, count: int) -> tuple[int | None, bool]:
        """Pass ``count`` bytes; where in them a record seems to start, and whether there were as many."""
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
