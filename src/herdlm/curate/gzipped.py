"""Reading gzip that may be damaged: nothing cut off passes for whole, and one bad member costs that member only."""

from __future__ import annotations

import io
import zlib
from typing import Any, BinaryIO

from herdlm.base.errors import InputError

MAGIC = b"\x1f\x8b\x08"
READ_BYTES = 1 << 16
MEMBER_BYTES = 64 << 20


class GzipMembers(io.RawIOBase):
    """The plain bytes of a gzip file of one or many members; crawls are written with one member per record.

    A member is passed on when it is whole and its checksum holds. A damaged one is left out and counted in ``damaged``,
    and reading goes on at the next member. A member of more than ``MEMBER_BYTES`` plain bytes is passed on in pieces;
    damage in it cannot be told apart from what follows and is an error.

    Raises:
        InputError: while reading: the file ends within a member, or a large member is damaged.
    """

    def __init__(self, raw: BinaryIO, name: str) -> None:
        self.raw, self.name = raw, name
        self.damaged = 0
        self._input = b""  # compressed bytes that belong to no member yet
        self._member: Any = None  # the decompressor of the member being read
        self._compressed = bytearray()  # that member so far, kept to look for the next one should it be damaged
        self._held = bytearray()  # its plain bytes, held back until its checksum is known
        self._in_pieces = False  # it turned out too large to hold back
        self._ready = bytearray()
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            self._step()
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        del self._ready[:count]
        return count

    def _step(self) -> None:
        """Decompress what was read, or read some more."""
        if not self._input:
            self._input = self.raw.read(READ_BYTES)
            if not self._input:
                if self._member is not None:
                    raise InputError(
                        f"{self.name} is cut off: its last gzip member has no end", "Fetch or compress the file again"
                    )
                self._ended = True
                return
        if self._member is None:
            self._input = self._input.lstrip(b"\0")  # padding after a member is no damage
            if not self._input:
                return
            self._member = zlib.decompressobj(wbits=31)
        data, self._input = self._input, b""
        if not self._in_pieces:
            self._compressed += data
        try:
            self._held += self._member.decompress(data)
        except zlib.error as error:
            self._leave_out(error)
            return
        if self._member.eof:
            self._input = self._member.unused_data
            self._ready += self._held
            self._start_over()
        elif self._in_pieces or len(self._held) > MEMBER_BYTES:
            self._in_pieces = True
            self._ready += self._held
            self._held.clear()
            self._compressed.clear()

    def _start_over(self) -> None:
        self._member, self._in_pieces = None, False
        self._compressed.clear()
        self._held.clear()

    def _leave_out(self, error: zlib.error) -> None:
        """Count the damaged member and go to where the next one seems to begin."""
        if self._in_pieces:
            raise InputError(
                f"{self.name} is damaged within a gzip member of more than {MEMBER_BYTES >> 20} MiB ({error})",
                "Fetch it again, or compress it record by record",
            ) from error
        self.damaged += 1
        rest = bytes(self._compressed)
        self._start_over()
        while (found := rest.find(MAGIC, 1)) < 0:
            piece = self.raw.read(READ_BYTES)
            if not piece:
                self._ended = True
                return
            rest = rest[-len(MAGIC) :] + piece
        self._input = rest[found:]
