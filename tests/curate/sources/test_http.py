"""Heads are hints: bodies that do not begin as their coding does, damaged heads, and records of other types."""

from __future__ import annotations

import gzip
import io
import zlib

import pytest
import zstandard
from fastwarc.stream_io import BrotliWriter, ZstdWriter

from herdlm.curate.sources.http import BodyError, media_type, parse_response
from tests.curate.crawls import Write, article, page, record, zipped
from tests.curate.sources.test_sources import read

BODY = page(article("en", "a"))


def packed(writer: type, content: bytes) -> bytes:
    out = io.BytesIO()
    with writer(out) as stream:
        stream.write(content)
    return out.getvalue()


def deflated(content: bytes, bits: int) -> bytes:
    packer = zlib.compressobj(wbits=bits)
    return packer.compress(content) + packer.flush()


def chunked(content: bytes, size: int = 100, extension: bytes = b"") -> bytes:
    pieces = [content[i : i + size] for i in range(0, len(content), size)]
    return b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n\r\n"


def body_of(head: bytes, body: bytes, line_end: bytes = b"\r\n") -> bytes:
    response = parse_response(line_end.join([b"HTTP/1.1 200 OK", head, b"", body]), 1 << 20)
    assert response is not None and response.status == 200
    return response.body


BROTLI = packed(BrotliWriter, BODY)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Encoding: gzip", BODY),
        (b"Content-Encoding: gzip", gzip.compress(BODY)),
        (b"Content-Encoding: gzip", gzip.compress(BODY) + b"\r\n"),
        (b"Content-Encoding: gzip", gzip.compress(BODY[:50]) + gzip.compress(BODY[50:]) + b"\0\0"),
        (b"Content-Encoding: gzip, gzip", gzip.compress(gzip.compress(BODY))),
        (b"content-encoding:X-GZIP", gzip.compress(BODY)),
        (b"X-None: 1", gzip.compress(BODY)),
        (b"Content-Encoding: none", BODY),
        (b"Content-Encoding: UTF-8", BODY),
        (b"Content-Encoding: identity", BODY),
        (b"Content-Encoding: br", BODY),
        (b"Content-Encoding: br", BROTLI),
        (b"Content-Encoding: deflate", deflated(BODY, 15)),
        (b"Content-Encoding: deflate", deflated(BODY, -15)),
        (b"Content-Encoding: deflate", deflated(BODY, -15) + b"\r\n"),
        (b"Content-Encoding: deflate", BODY),
        (b"Content-Encoding: deflate", gzip.compress(BODY)),
        (b"Content-Encoding: zstd", packed(ZstdWriter, BODY)),
        (b"Content-Encoding: zstd", BODY),
        (b"Transfer-Encoding: chunked", chunked(BODY)),
        (b"Transfer-Encoding: chunked", chunked(BODY, extension=b";a=1")),
        (b"Transfer-Encoding: chunked", chunked(BODY).replace(b"\r\n", b"\n")),
        (b"Transfer-Encoding: chunked", chunked(BODY)[:-5]),  # without the last chunk
        (b"Transfer-Encoding: chunked", BODY),
        (b"Transfer-Encoding: gzip, chunked", chunked(gzip.compress(BODY))),
        (b"Transfer-Encoding: chunked\r\nContent-Encoding: br", chunked(BROTLI)),
        (b"Transfer-Encoding: chunked\r\nContent-Encoding: gzip", BODY),
        (b"Transfer-Encoding: chunked\r\nContent-Encoding: gzip", gzip.compress(BODY)),
    ],
)
def test_a_coding_is_undone_only_where_the_body_begins_so(head: bytes, body: bytes) -> None:
    assert body_of(head, body) == BODY


def test_text_that_begins_like_a_chunk_stays() -> None:
    text = b"12\r\nis the first line, and bad\r\nis no number of bytes\r\n"
    assert body_of(b"Transfer-Encoding: chunked", text) == text


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Encoding: gzip", gzip.compress(BODY)[:-20]),
        (b"Content-Encoding: gzip", gzip.compress(BODY)[:40] + b"\xff" * 9 + gzip.compress(BODY)[49:]),
        (b"Content-Encoding: br", BROTLI[: len(BROTLI) // 2]),
        (b"Transfer-Encoding: chunked", chunked(BODY).replace(b"\r\n64\r\n", b"\r\nzz\r\n", 3)),
    ],
)
def test_a_damaged_body_is_an_error(head: bytes, body: bytes) -> None:
    with pytest.raises(BodyError):
        body_of(head, body)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_heads_with_bare_line_feeds(line_end: bytes) -> None:
    assert body_of(b"Content-Encoding: gzip", gzip.compress(BODY), line_end) == BODY


def test_a_body_is_unpacked_up_to_a_limit() -> None:
    bomb = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(10 << 20))
    response = parse_response(bomb, 1000)
    assert response is not None and len(response.body) == 1000


@pytest.mark.parametrize(
    ("value", "media", "charset"),
    [
        ("text/html; charset=utf-8", "text/html", "utf-8"),
        ('Text/HTML;Charset="EUC-KR"', "text/html", "EUC-KR"),
        ("text/html, text/html; charset='big5'", "text/html", "big5"),
        ('"text/html"; charset', "text/html", ""),
        ("text/html charset=gbk", "text/html", "gbk"),
        ("charset=gbk", "", "gbk"),
        ("html", "", ""),
        ("", "", ""),
    ],
)
def test_content_types(value: str, media: str, charset: str) -> None:
    assert media_type(value) == (media, charset)


@pytest.mark.parametrize(
    ("media", "identified", "fault"),
    [
        ("text/html", "", None),
        ("text/html", "application/pdf", "not_html"),
        ("text/html", "text/plain", None),
        ("application/octet-stream", "text/html", None),
        ("text/plain", "application/xhtml+xml", None),
        ("text/plain", "", "not_html"),
        ("image/png", "", "not_html"),
        ("html", "", None),
        ("", "", None),
        ("text/x-html", "", None),
        ("text/html;;charset", "", None),
    ],
)
def test_what_the_crawler_identified_counts_more_than_the_server(
    write: Write, media: str, identified: str, fault: str | None
) -> None:
    extra = f"WARC-Identified-Payload-Type: {identified}\r\n" if identified else ""
    (found,) = read(write("c.warc", record("https://x.example/", BODY, media=media, extra=extra)))
    assert found.fault == fault


def other_record(kind: str, media: str, content: bytes) -> bytes:
    return record("https://x.example/other", content, kind=kind).replace(b"application/warc-fields", media.encode())


@pytest.mark.parametrize(
    ("kind", "media", "page_kind", "fault"),
    [
        ("resource", "text/html; charset=utf-8", "html", None),
        ("resource", "text/plain", "text", None),
        ("resource", "image/png", "html", "not_html"),
        ("conversion", "text/plain", "text", None),
        ("conversion", "text/html", "html", None),
    ],
)
@pytest.mark.parametrize("name", ["c.warc", "c.warc.gz", "c.warc.zst", "c.warc.wet.gz"])
def test_records_without_http(
    write: Write, name: str, kind: str, media: str, page_kind: str, fault: str | None
) -> None:
    records = [record("", b"software: test\r\n", kind="warcinfo", media=""), other_record(kind, media, BODY)]
    content = b"".join(records)
    if name.endswith("gz"):
        content = zipped(*records)
    if name.endswith("zst"):
        content = b"".join(packed(ZstdWriter, each) for each in records)
    (found,) = read(write(name, content))
    assert (found.kind, found.fault, found.payload) == (page_kind, fault, BODY)


def test_zstd_with_skipped_frames_and_damage(write: Write) -> None:
    records = [record(f"https://x.example/{i}", page(article("en", str(i)))) for i in range(30)]
    plain = read(write("plain.warc", b"".join(records)))
    whole = b"".join(packed(ZstdWriter, each) for each in records)
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    assert [p.payload for p in read(write("c.warc.zst", whole + skipped))] == [p.payload for p in plain]
    cut = read(write("cut.warc.zst", whole[:-30]))
    assert [p.fault for p in cut].count(None) >= 27 and cut[-1].fault == "cut_off"


def test_zstd_dictionary(write: Write) -> None:
    records = [record(f"https://x.example/{i}", page(article("en", str(i)))) for i in range(300)]
    dictionary = zstandard.train_dictionary(4096, records)
    packer = zstandard.ZstdCompressor(dict_data=dictionary)
    raw = dictionary.as_bytes()
    for name, content in {"raw": raw, "packed": zstandard.compress(raw)}.items():
        first = b"\x5d\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content
        path = write(f"{name}.warc.zst", first + b"".join(map(packer.compress, records)))
        assert [p.url for p in read(path)] == [f"https://x.example/{i}" for i in range(300)]
