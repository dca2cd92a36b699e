"""Makes pages of WARC records: HTTP responses, resources without an HTTP head, and the text of WET files."""

from __future__ import annotations

import base64
import hashlib

from herdlm.curate.config import CurateConfig
from herdlm.curate.sources.frames import Frame
from herdlm.curate.sources.http import HTML_TYPES, BodyError, Response, looks_like_html, media_type, parse_response
from herdlm.curate.sources.page import DAMAGED, TOO_LARGE, Kind, Page

BASE32_SHA1_CHARS = 32
HTTP_OK, NO_HTTP = 200, 0
PAGE_TYPES = ("response", "resource", "conversion")
VAGUE_TYPES = ("text/plain", "application/octet-stream", "application/xml")


def page_of(frame: Frame, number: int, config: CurateConfig) -> Page | None:
    """Return the page of a record, or None if the record is of another type."""
    kind = frame.header(b"WARC-Type").lower()
    if kind and kind not in PAGE_TYPES:
        return None
    url, date = frame.header(b"WARC-Target-URI").strip("<>"), frame.header(b"WARC-Date")
    if frame.fault is not None:
        return Page(number, frame.block, url, date, fault=frame.fault)
    if not kind:
        return Page(number, url=url, date=date, fault=DAMAGED)
    if config.verify_digests and not _digest_holds(frame.block, frame.header(b"WARC-Block-Digest")):
        return Page(number, frame.block, url, date, fault=DAMAGED)
    try:
        response = _response(frame, kind, config)
    except BodyError:
        return Page(number, frame.block, url, date, fault=DAMAGED)
    page_kind = _kind(response, frame, kind)
    return Page(
        number,
        response.body,
        url,
        date,
        response.charset,
        kind=page_kind or "html",
        robots=response.robots,
        fault=_fault(response, page_kind, frame, config),
    )


def _response(frame: Frame, kind: str, config: CurateConfig) -> Response:
    """Return the HTTP response in a record, or its block as one if it has no HTTP head."""
    response = parse_response(frame.block, config.max_page_bytes + 1) if kind == "response" else None
    if response is not None:
        return response
    media, charset = media_type(frame.header(b"Content-Type"))
    status = HTTP_OK if kind != "response" or looks_like_html(frame.block) else NO_HTTP
    return Response(status, media, charset, "", frame.block)


def _kind(response: Response, frame: Frame, kind: str) -> Kind | None:
    """Return what a body is, or None if it is neither HTML nor, in a record that is no response, plain text.

    What the crawler identified counts more than what the server said. A type that cannot be read is taken for HTML.
    """
    identified = media_type(frame.header(b"WARC-Identified-Payload-Type"))[0]
    media = response.media
    if identified and not (media in HTML_TYPES and identified in VAGUE_TYPES):
        media = identified
    if not media or media in HTML_TYPES or ("htm" in media and looks_like_html(response.body)):
        return "html"
    return "text" if media == "text/plain" and kind != "response" else None


def _fault(response: Response, kind: Kind | None, frame: Frame, config: CurateConfig) -> str | None:
    if response.status != HTTP_OK:
        return "not_http" if response.status == NO_HTTP else "http_status"
    if kind is None:
        return "not_html"
    if frame.header(b"WARC-Truncated"):
        return "truncated_page"
    return TOO_LARGE if len(response.body) > config.max_page_bytes else None


def _digest_holds(block: bytes, digest: str) -> bool:
    """Return whether a block has the SHA-1 that its record states. Other digests are not checked."""
    algorithm, _, value = digest.partition(":")
    if algorithm.lower() != "sha1" or len(value) != BASE32_SHA1_CHARS:
        return True
    return base64.b32encode(hashlib.sha1(block, usedforsecurity=False).digest()).decode() == value.upper()
