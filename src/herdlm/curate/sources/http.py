"""Reads the HTTP response of a record: its head, and the body with its codings undone.

Heads are hints. Archives store bodies without the coding that the head still names, and servers misname it. So a coding
is undone only where the body begins as that coding does; elsewhere the body is taken as it stands.
"""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass
from functools import cache

from fastwarc.stream_io import BrotliReader, ZstdReader

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
MAX_CODINGS = 4
_STATUS = re.compile(rb"\s*HTTP/\d+(?:\.\d+)?[ \t]+(\d{3})")
_HEAD_END = re.compile(rb"\r?\n[ \t]*\r?\n|\r\r")
_MEDIA = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
_CHARSET = re.compile(r"charset\s*=?\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")
_HTML_START = re.compile(rb"(?:\xef\xbb\xbf)?[\s\0]*<[!?a-zA-Z]")
_GZIP, _ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"


class BodyError(Exception):
    """The body begins as its coding does, but is damaged."""


@dataclass(frozen=True, slots=True)
class Response:
    """The status, the media type ("" if the head has none that can be read), the charset, and the body."""

    status: int
    media: str
    charset: str
    robots: str
    body: bytes


def parse_response(block: bytes, limit: int) -> Response | None:
    """Return the response in a record's block, with at most ``limit`` bytes of its body, or None if it is none.

    Raises:
        BodyError: The body is damaged.
    """
    status = _STATUS.match(block)
    if status is None:
        return None
    end = _HEAD_END.search(block)
    head, body = (block[: end.start()], block[end.end() :]) if end else (block, b"")
    media, charset = media_type(header(head, b"Content-Type"))
    if "chunked" in header(head, b"Transfer-Encoding").lower():
        body = _unchunk(body)
    named = re.split(r"[\s,;]+", header(head, b"Content-Encoding").lower())
    body = _decode(body, named, limit)
    return Response(int(status[1]), media, charset, header(head, b"X-Robots-Tag", ", "), body)


@cache
def _header(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?:^|[\r\n])" + name + rb"[ \t]*:([^\r\n]*(?:\r?\n[ \t]+[^\r\n]*)*)", re.IGNORECASE)


def header(head: bytes, name: bytes, join: str = "") -> str:
    """Return the value of a header, the first one's or all joined by ``join``, or ""."""
    values = [value.decode("latin-1").strip() for value in _header(name).findall(head)]
    return join.join(values) if join else next(iter(values), "")


def media_type(value: str) -> tuple[str, str]:
    """Return the media type and charset of a Content-Type, each "" if there is none that can be read."""
    media, charset = _MEDIA.search(value.lower()), _CHARSET.search(value)
    return media[0] if media else "", charset[1] if charset else ""


def looks_like_html(body: bytes) -> bool:
    """Return whether a body begins with a tag, comment or declaration."""
    return _HTML_START.match(body[:1024]) is not None


def _unchunk(body: bytes) -> bytes:
    """Return a body without chunks (RFC 9112, 7.1), or as it stands if it does not begin with one.

    Raises:
        BodyError: A later chunk is damaged or missing.
    """
    parts: list[bytes] = []
    at = 0
    while (size := _CHUNK.match(body, at)) is not None:
        length = int(size[1], 16)
        if not length:
            return b"".join(parts)
        end = size.end() + length
        after = re.compile(rb"\r?\n|\Z").match(body, end) if end <= len(body) else None
        if after is None:
            break
        parts.append(body[size.end() : end])
        at = after.end()
    if parts and at < len(body):
        raise BodyError
    return b"".join(parts) if parts else body


def _decode(body: bytes, named: list[str], limit: int) -> bytes:
    """Undo the codings that a body begins with: those that show by themselves, and those that are named."""
    for _ in range(MAX_CODINGS):
        if body.startswith(_GZIP):
            body = _inflate(body, 31, limit)
        elif body.startswith(_ZSTD):
            body = _read(ZstdReader, body, limit)
        else:
            break
    if looks_like_html(body):
        return body
    if "deflate" in named:
        for bits in (15, -15):
            try:
                return _inflate(body, bits, limit)
            except BodyError:
                continue
    if "br" in named:
        try:
            return _read(BrotliReader, body, limit)
        except BodyError:
            if not _is_text(body):
                raise
    return body


def _is_text(body: bytes) -> bool:
    return not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", body[:1024])


def _inflate(body: bytes, bits: int, limit: int) -> bytes:
    """Return at most ``limit`` bytes of a body in gzip, zlib or raw deflate. What follows its end is left out."""
    parts: list[bytes] = []
    size = 0
    while size < limit:
        member = zlib.decompressobj(bits)
        try:
            parts.append(member.decompress(body, limit - size))
        except zlib.error as error:
            raise BodyError from error
        size += len(parts[-1])
        if not member.eof and size < limit:
            raise BodyError
        body = member.unused_data
        if bits != 31 or not body.startswith(_GZIP):
            break
    return b"".join(parts)


def _read(reader: type, body: bytes, limit: int) -> bytes:
    try:
        content: bytes = reader(io.BytesIO(body)).read(limit)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # compiled code on hostile bytes
        raise BodyError from error
    if not content:
        raise BodyError
    return content
