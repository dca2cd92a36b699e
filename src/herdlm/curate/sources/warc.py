"""Reads pages from WARC files (ISO 28500), plain, gzipped or compressed with Zstandard.

Damage costs the records it touches, which get a fault.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import BinaryIO

from fastwarc.stream_io import ZstdReader

from herdlm.base.errors import InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.sources.frames import find_frame, frames
from herdlm.curate.sources.gzipped import MAGIC, CutOffError, DamageError, GzipMembers
from herdlm.curate.sources.page import CUT_OFF, DAMAGED, Page
from herdlm.curate.sources.reach import Reach
from herdlm.curate.sources.record import page_of

HTTP_HEAD_BYTES = 1 << 20
START = b"WARC/"
ZSTD = b"\x28\xb5\x2f\xfd"
DICTIONARY = b"\x5d\x2a\x4d\x18"  # a frame that decoders skip, before all others
MAX_DICTIONARY_BYTES = 16 << 20
ZSTD_READ_BYTES = 1 << 11  # at a time: what comes with damage is lost


def read_warc(file: BinaryIO, name: str, reach: Reach, config: CurateConfig) -> Iterator[Page]:
    """Yield the pages of the records that start in ``reach``, in order.

    Pages are in ``response`` and ``resource`` records, and as text in the ``conversion`` records of WET files. Other
    records are skipped.

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
    if start.startswith((ZSTD, DICTIONARY)):
        yield from _read_zstd(file, name, reach, config)
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
        if (page := page_of(frame, frame.offset, config)) is not None:
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
                if (page := page_of(frame, last, config)) is not None:
                    yield page
            offset = members.next_offset()
        except (DamageError, CutOffError) as error:
            reach.at = last = max(last + 1, start)
            yield Page(last, fault=DAMAGED if isinstance(error, DamageError) else CUT_OFF)
            offset = members.find(START)
            reach.lost = offset is None
    reach.next = offset


def _read_zstd(file: BinaryIO, name: str, reach: Reach, config: CurateConfig) -> Iterator[Page]:
    """Yield the pages of a file in Zstandard, numbered by their offsets in what it unpacks to.

    A dictionary can come first, in a frame of its own, itself compressed or not.
    """
    dictionary: bytes | None = None
    if file.read(len(DICTIONARY)) == DICTIONARY:
        dictionary = file.read(int.from_bytes(file.read(4), "little"))
        if dictionary.startswith(ZSTD):
            dictionary = ZstdReader(io.BytesIO(dictionary)).read(MAX_DICTIONARY_BYTES)
    else:
        file.seek(0)
    stream = ZstdReader(file, dictionary=dictionary) if dictionary else ZstdReader(file)
    limit = config.max_page_bytes + HTTP_HEAD_BYTES
    reach.first = 0
    try:
        if (start := stream.read(len(START))) != START:
            raise _not_warc(name, start)
        rest = itertools.chain([start], iter(lambda: stream.read(ZSTD_READ_BYTES), b""))
        for frame in frames(lambda size: next(rest, b""), 0, limit, short=CUT_OFF):
            reach.at = frame.offset
            if (page := page_of(frame, frame.offset, config)) is not None:
                yield page
    except OSError as error:
        reach.at += 1
        reach.lost = True
        yield Page(reach.at, fault=CUT_OFF if "incomplete" in str(error) else DAMAGED)


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
        "Give a .warc, .warc.gz or .warc.zst file, or set curate.format to what it is",
    )
