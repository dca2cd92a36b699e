"""Pages from WARC files (ISO 28500), plain or gzipped. A damaged record costs its page, a damaged file the run."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from herdlm.base.errors import InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.gzipped import MAGIC, GzipMembers
from herdlm.curate.page import Page

BASE32_SHA1_CHARS = 32
HTTP_OK = 200
HTML_TYPES = ("text/html", "application/xhtml+xml")


def read_warc(file: BinaryIO, name: str, config: CurateConfig) -> Iterator[Page]:
    """The pages of the ``response`` records of one WARC file, in its order; other records are passed over.

    A page that cannot be used carries a ``fault``: damaged_record, not_http, http_status, not_html,
    truncated_page or too_large.

    Raises:
        InputError: ``name`` is not a WARC file, is cut off, or has no response record.
    """
    start = file.read(len(MAGIC))
    file.seek(0)
    members = GzipMembers(file, name) if start == MAGIC else None
    raw = _Plain(members or file)
    plain = io.BufferedReader(raw, buffer_size=1 << 18)
    if not plain.peek(5)[:5].startswith(b"WARC/") and not (members and members.damaged):
        raise InputError(
            f"{name} is not a WARC file: it starts with {plain.peek(8)[:8]!r}",
            "Give a .warc or .warc.gz file, or set curate.format to what it is",
        )
    pages = damaged = 0
    short = False
    # quirks_mode: after a broken record the iterator goes on at the next one instead of giving up
    for record in ArchiveIterator(plain, parse_http=False, stream_detect=False, quirks_mode=True):
        record.freeze()
        block = record.reader.read()
        short = str(len(block)) != _header(record, "Content-Length").strip()
        for _ in range((members.damaged if members else 0) - damaged):
            damaged += 1
            yield Page(fault="damaged_record")
        if record.record_type == WarcRecordType.response:
            pages += 1
            yield _page(record, block, short, config)
    if short or raw.last != b"\n":  # records end with two line ends
        raise InputError(f"{name} is cut off within its last record", "Fetch the file again")
    yield from (Page(fault="damaged_record") for _ in range((members.damaged if members else 0) - damaged))
    if not pages:
        raise InputError(f"{name} holds no pages: it has no response record", "Give a crawl with WARC response records")


def _page(record: WarcRecord, block: bytes, short: bool, config: CurateConfig) -> Page:
    url, date = _header(record, "WARC-Target-URI").strip("<>"), _header(record, "WARC-Date")
    if short or (config.verify_digests and not _digest_holds(block, _header(record, "WARC-Block-Digest"))):
        return Page(block, url, date, fault="damaged_record")
    try:
        record.reader.seek(0)
        record.parse_http(auto_decode="all")
        payload = record.reader.read()
    except (OSError, ValueError):
        return Page(block, url, date, fault="damaged_record")
    return Page(payload, url, date, record.http_charset or "", fault=_fault(record, payload, config))


def _fault(record: WarcRecord, payload: bytes, config: CurateConfig) -> str | None:
    if not record.is_http:
        return "not_http"
    if record.http_headers.status_code != HTTP_OK:
        return "http_status"
    if (record.http_content_type or HTML_TYPES[0]).lower() not in HTML_TYPES:
        return "not_html"
    if _header(record, "WARC-Truncated"):
        return "truncated_page"
    return "too_large" if len(payload) > config.max_page_bytes else None


def _header(record: WarcRecord, name: str) -> str:
    return record.headers.get(name) or ""


def _digest_holds(block: bytes, digest: str) -> bool:
    """Whether a block has the SHA-1 its record states; other kinds of digest are not checked."""
    algorithm, _, value = digest.partition(":")
    if algorithm.lower() != "sha1" or len(value) != BASE32_SHA1_CHARS:
        return True
    return base64.b32encode(hashlib.sha1(block, usedforsecurity=False).digest()).decode() == value.upper()


class _Plain(io.RawIOBase):
    """The plain bytes of a WARC file as a raw stream that remembers its ``last`` byte."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.last = b""
        self.passed_on = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.passed_on

    def readinto(self, buffer: Any) -> int:
        piece = self.file.read(len(buffer))
        buffer[: len(piece)] = piece
        self.last = piece[-1:] or self.last
        self.passed_on += len(piece)
        return len(piece)
