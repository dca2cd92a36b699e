"""Reads gzip files that can be damaged or entered in the middle: a damaged member costs only that member.

Crawls have one gzip member per record, and a member can be read without those before it. So a file can be divided at
any byte: a reader that starts there looks for the next member, and owns the members that start in its range.
"""

from __future__ import annotations

import zlib
from typing import Any, BinaryIO

MAGIC = b"\x1f\x8b\x08"
READ_BYTES = 1 << 16
HELD_BYTES = 16 << 20
PROBE_BYTES = 1 << 16


class DamageError(Exception):
    """The rest of this member cannot be decompressed."""


class CutOffError(Exception):
    """The file ends within this member."""


class GzipMembers:
    """Reads the members of a gzip file, from an offset on.

    Call :meth:`find` or :meth:`next_offset` to go to the start of a member, then :meth:`read` until it returns b"". A
    member of at most ``held_bytes`` plain bytes is only returned if it is complete and its checksum matches. A larger
    one is returned in pieces, so damage only shows after its start. After ``DamageError`` or ``CutOffError``,
    :meth:`find` goes on.
    """

    def __init__(self, file: BinaryIO, offset: int = 0, *, held_bytes: int = HELD_BYTES) -> None:
        self._file, self._held_bytes = file, held_bytes
        self._input = b""  # compressed bytes that are still to be read
        self.offset = offset  # the offset of the first of them
        self._member: Any = None  # the decompressor of the member being read
        self._checked = b""  # verified plain bytes
        self._at_start = True
        if offset:
            file.seek(offset)

    def next_offset(self) -> int | None:
        """Skip padding, and return where the next member starts, or None at the end of the file."""
        self._at_start = True
        while True:
            stripped = self._input.lstrip(b"\0")
            self.offset += len(self._input) - len(stripped)
            self._input = stripped
            if self._input:
                return self.offset
            if not self._fill():
                return None

    def find(self, prefix: bytes) -> int | None:
        """Go to the next member whose plain bytes start with ``prefix``. Return its offset or None."""
        self._at_start = True
        while True:
            at = self._input.find(MAGIC)
            if at >= 0:
                self._pass(at)
                if self._starts_with(prefix):
                    return self.offset
                self._pass(1)
            else:
                self._pass(max(len(self._input) - len(MAGIC) + 1, 0))
                if not self._fill():
                    return None

    def starts_with(self, prefix: bytes) -> bool:
        """Return whether a member starts here whose plain bytes start with ``prefix``."""
        while len(self._input) < len(MAGIC) and self._fill():
            pass
        return self._input.startswith(MAGIC) and self._starts_with(prefix)

    def read(self, size: int) -> bytes:
        """Return at most ``size`` plain bytes of the current member, or b"" at its end.

        Raises:
            DamageError: The member, or the rest of it, is damaged.
            CutOffError: The file ends within it.
        """
        if self._at_start:
            self._at_start = False
            self._begin()
        if self._checked:
            piece, self._checked = self._checked[:size], self._checked[size:]
            return piece
        return b"" if self._member.eof else self._decompress(size)

    def _begin(self) -> None:
        """Start the member. If it is small, hold all of it back until its checksum is verified."""
        member, parts, size, used = zlib.decompressobj(wbits=31), [], 0, 0
        while not member.eof and size <= self._held_bytes:
            if used == len(self._input) and not self._fill():
                self._pass(1)
                raise CutOffError
            data = self._input[used : used + READ_BYTES]
            try:
                # Bounded, so that a decompression bomb cannot fill the memory.
                parts.append(member.decompress(data, self._held_bytes + 1 - size))
            except zlib.error as error:
                self._pass(1)
                raise DamageError from error
            used += len(data) - _left(member)
            size += len(parts[-1])
        self._pass(used)
        self._member, self._checked = member, b"".join(parts)

    def _decompress(self, size: int) -> bytes:
        """Return the next piece of a member that is too large to hold."""
        while True:
            if not self._input:
                self._fill()
            data = self._input[:READ_BYTES]
            try:
                piece: bytes = self._member.decompress(data, size)
            except zlib.error as error:
                raise DamageError from error
            self._pass(len(data) - _left(self._member))
            if piece or self._member.eof:
                return piece
            if not data:
                raise CutOffError

    def _starts_with(self, prefix: bytes) -> bool:
        member, used, plain = zlib.decompressobj(wbits=31), 0, b""
        while len(plain) < len(prefix) and not member.eof and used < PROBE_BYTES:
            if used == len(self._input) and not self._fill():
                break
            data = self._input[used : used + 512]
            try:
                plain += member.decompress(data, len(prefix) - len(plain))
            except zlib.error:
                return False
            used += len(data)
        return plain == prefix

    def _pass(self, count: int) -> None:
        self._input = self._input[count:]
        self.offset += count

    def _fill(self) -> bool:
        piece = self._file.read(READ_BYTES)
        self._input += piece
        return bool(piece)


def _left(member: Any) -> int:
    """Return how many of the bytes that a decompressor was given it has not used."""
    return len(member.unused_data if member.eof else member.unconsumed_tail)
