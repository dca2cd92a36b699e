"""Reads pages from WARC files (ISO 28500), plain or gzipped. Damage costs the records it touches, which get a fault."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from typing import BinaryIO

from fastwarc.warc import ArchiveIterator, WarcRecord

from herdlm.base.errors import InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.sources.frames import Frame, find_frame, frames
from herdlm.curate.sources.gzipped import MAGIC, CutOffError, DamageError, GzipMembers
from herdlm.curate.sources.page import CUT_OFF, DAMAGED, TOO_LARGE, Page
from herdlm.curate.sources.reach import Reach

BASE32_SHA1_CHARS = 32
HTTP_OK = 200
HTML_TYPES = ("text/html", "application/xhtml+xml")
HTTP_HEAD_BYTES = 1 << 20
START = b"WARC/"


def read_warc(file: BinaryIO, name: str, reach: Reach, config: CurateConfig) -> Iterator[Page]:
    """Yield the pages of the ``response`` records that start in ``reach``, in order. Other records are skipped.

    A page's number is its record's offset in the file. If records share a gzip member, those after the first get
    successive numbers. A page that cannot be used has a ``fault``: damaged_record, cut_off, not_http, http_status,
    not_html, truncated_page or too_large.

    Raises:
        InputError: ``name`` is not a WARC file.
    """
    start = file.read(len(START))
    file.seek(0)
    if start.startswith(MAGIC):
        yield from _read_gzipped(file, name, reach, config)
        return
    if start != START:
        raise _not_warc(name, start)
    limit = config.max_page_bytes + HTTP_HEAD_BYTES
    reach.first = find_frame(file, reach.begin) if reach.begin and not reach.known else reach.begin
    if reach.first is None:
        return
    file.seek(reach.first)
    for frame in frames(file.read, reach.first, limit, short=CUT_OFF, seek=file.seek):
        if frame.offset >= reach.end:
            reach.next = frame.offset
            return
        reach.at = frame.offset
        if (page := _page(frame, frame.offset, config)) is not None:
            yield page


def _read_gzipped(file: BinaryIO, name: str, reach: Reach, config: CurateConfig) -> Iterator[Page]:
    members = GzipMembers(file, reach.begin)
    if reach.begin == 0 and not members.starts_with(START):
        _refuse_other_content(file, name)
        members = GzipMembers(file)
    limit = config.max_page_bytes + HTTP_HEAD_BYTES
    offset = members.next_offset() if reach.begin == 0 or reach.known else members.find(START)
    reach.first = offset
    last = -1
    while offset is not None and offset < reach.end:
        start = offset
        try:
            # If a complete member is shorter than its record states, the record is damaged, not cut off.
            for frame in frames(members.read, 0, limit, short=DAMAGED):
                reach.at = last = max(last + 1, start)
                if (page := _page(frame, last, config)) is not None:
                    yield page
            offset = members.next_offset()
        except (DamageError, CutOffError) as error:
            reach.at = last = max(last + 1, start)
            yield Page(last, fault=DAMAGED if isinstance(error, DamageError) else CUT_OFF)
            offset = members.find(START)
            reach.lost = offset is None
    reach.next = offset


def _refuse_other_content(file: BinaryIO, name: str) -> None:
    """Raise if the file's first member is complete and not WARC. After a damaged one, others can follow."""
    file.seek(0)
    try:
        plain = GzipMembers(file).read(8)
    except (DamageError, CutOffError):
        file.seek(0)
        if GzipMembers(file).find(START) is None:
            raise _not_warc(name, b"gzip that cannot be read") from None
    else:
        raise _not_warc(name, plain)
    file.seek(0)


def _not_warc(name: str, start: bytes) -> InputError:
    return InputError(
        f"{name} is not a WARC file: it starts with {start!r}",
        "Give a .warc or .warc.gz file, or set curate.format to what it is",
    )


def _page(frame: Frame, number: int, config: CurateConfig) -> Page | None:
    """Return the page of a record, or None if the record is of another type."""
    kind = frame.header(b"WARC-Type")
    if kind and kind != "response":
        return None
    url, date = frame.header(b"WARC-Target-URI").strip("<>"), frame.header(b"WARC-Date")
    if frame.fault is not None:
        return Page(number, frame.block, url, date, fault=frame.fault)
    if not kind:
        return Page(number, url=url, date=date, fault=DAMAGED)
    if config.verify_digests and not _digest_holds(frame.block, frame.header(b"WARC-Block-Digest")):
        return Page(number, frame.block, url, date, fault=DAMAGED)
    try:
        # The parser is compiled code, so anything that it raises on hostile bytes is caught.
        record = next(iter(ArchiveIterator(io.BytesIO(frame.whole()), parse_http=False, stream_detect=False)))
        record.parse_http(auto_decode="all")
        payload = record.reader.read(config.max_page_bytes + 1)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException:
        return Page(number, frame.block, url, date, fault=DAMAGED)
    return Page(number, payload, url, date, record.http_charset or "", fault=_fault(record, frame, payload, config))


def _fault(record: WarcRecord, frame: Frame, payload: bytes, config: CurateConfig) -> str | None:
    if not record.is_http:
        return "not_http"
    if record.http_headers.status_code != HTTP_OK:
        return "http_status"
    if (record.http_content_type or HTML_TYPES[0]).lower() not in HTML_TYPES:
        return "not_html"
    if frame.header(b"WARC-Truncated"):
        return "truncated_page"
    return TOO_LARGE if len(payload) > config.max_page_bytes else None


def _digest_holds(block: bytes, digest: str) -> bool:
    """Return whether a block has the SHA-1 that its record states. Other digests are not checked."""
    algorithm, _, value = digest.partition(":")
    if algorithm.lower() != "sha1" or len(value) != BASE32_SHA1_CHARS:
        return True
    return base64.b32encode(hashlib.sha1(block, usedforsecurity=False).digest()).decode() == value.upper()
