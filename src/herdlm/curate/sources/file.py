"""A file of a crawl, wherever it is stored."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from herdlm.base.errors import InputError

KEPT_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """One file of a crawl, or one folder of source code.

    Attributes:
        filesystem: The fsspec filesystem that has the file.
        path: Its path on the filesystem.
        given: The source that named it.
        name: A short name, unique among the files of the crawl.
        format: warc, parquet, jsonl, text or code.
        bytes: Its size, or 0 if the server does not report it.
        identity: Distinguishes versions of its content.
        seekable: Whether parts of it can be read.
    """

    filesystem: Any
    path: str
    given: str
    name: str
    format: str
    bytes: int
    identity: str
    seekable: bool

    def open(self) -> BinaryIO:
        """Open the file as a binary stream."""
        if self.seekable:
            return cast(BinaryIO, self.filesystem.open(self.path, "rb"))
        return cast(BinaryIO, io.BufferedReader(_Stream(self.filesystem.open(self.path, "rb", block_size=0))))


class _Stream(io.RawIOBase):
    """A file that can only be read from start to end, except that its first ``KEPT_BYTES`` are kept."""

    def __init__(self, file: Any) -> None:
        self.file, self.kept, self.at, self.end = file, b"", 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self.end <= KEPT_BYTES

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset if whence == io.SEEK_SET else self.at + offset
        if whence == io.SEEK_END or place > self.end or (place < self.end and self.end > KEPT_BYTES):
            raise OSError("the server sends the file only from start to end")
        self.at = place
        return place

    def readinto(self, buffer: Any) -> int:
        piece = self.kept[self.at : self.at + len(buffer)] if self.at < self.end else self.file.read(len(buffer))
        if self.at == self.end:
            self.end += len(piece)
            self.kept = self.kept + piece if self.end <= KEPT_BYTES else b""
        self.at += len(piece)
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self.file.close()
        super().close()


def one_line(error: BaseException) -> str:
    """Return an error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def unreadable(file: SourceFile, error: BaseException) -> InputError:
    """Return the error for a file that is not what its format promises."""
    remedy = "Check that it is complete and has that format"
    return InputError(f"source {file.path} cannot be read as {file.format}: {one_line(error)}", remedy)
