"""Reading WARC, Parquet and JSONL, whole and broken."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from herdlm.base.errors import InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.sources import find_sources, read_batches
from tests.curate.crawls import Write, page, record, small_crawl, zipped


def rows(*sources: object, **keys: Any) -> list[dict[str, Any]]:
    config = CurateConfig(**keys)
    files = find_sources([str(source) for source in sources], config)
    found = [row for batch, _ in read_batches(files, config, 3) for row in batch.to_pylist()]
    assert sum(row["read_bytes"] for row in found) == sum(file.bytes for file in files)
    assert [row["row"] for row in found] == list(range(len(found)))
    return found


@pytest.mark.parametrize("name", ["crawl.warc", "crawl.warc.gz"])
def test_warc(write: Write, name: str) -> None:
    records = small_crawl()
    path = write(name, zipped(*records) if name.endswith("gz") else b"".join(records))
    found = rows(path)
    assert len(found) == len(records) - 1  # all but the warcinfo record
    assert found[0]["id"] == f"{name}#0"
    assert found[0]["url"] == "https://x.example/en-a"
    assert found[0]["date"] == "2026-01-02T03:04:05Z"
    assert found[0]["payload"].startswith(b"<!DOCTYPE html>")
    assert [row["fault"] for row in found[:4]] == [None, "http_status", "not_html", None]


def test_one_member_for_all_records_reads_the_same(write: Write) -> None:
    records = small_crawl()
    apart, together = write("a/c.warc.gz", zipped(*records)), write("b/c.warc.gz", gzip.compress(b"".join(records)))
    assert [r["payload"] for r in rows(apart)] == [r["payload"] for r in rows(together)]


def test_http_charset_and_transfer_encoding(write: Write) -> None:
    body = page("Grüße").decode().encode("latin-1")
    chunked = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    block = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=ISO-8859-1\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunked
    )
    data = (
        record("https://x.example/", b"").split(b"Content-Length")[0].replace(b"WARC-Block-Digest: sha1:", b"X-Was: ")
    )
    data += b"Content-Length: %d\r\n\r\n%s\r\n\r\n" % (len(block), block)
    (found,) = rows(write("c.warc", data))
    assert found["payload"] == body
    assert found["charset"] in ("iso-8859-1", "latin-1", "windows-1252", "cp1252", "iso8859-1")


def test_a_response_that_is_no_http_message_is_set_aside(write: Write) -> None:
    odd = small_crawl()[1].replace(b"application/http; msgtype=response", b"text/html")
    assert [row["fault"] for row in rows(write("c.warc", odd + small_crawl()[1]))] == ["not_http", None]


def test_a_damaged_record_costs_its_page_only(write: Write) -> None:
    records = small_crawl()
    packed = [bytearray(zipped(each)) for each in records]
    packed[3][-20] ^= 0xFF
    found = rows(write("gz.warc.gz", b"".join(packed)))
    assert len(found) == len(records) - 1
    assert [row["fault"] for row in found].count("damaged_record") == 1
    assert found[-1]["url"] == "https://x.example/empty"

    changed = [bytearray(each) for each in records]
    changed[6] = changed[6].replace(b"<p>", b"<q>", 1)  # no longer what its digest says
    found = rows(write("digest.warc", b"".join(changed)))
    assert [(row["url"], row["fault"]) for row in found][5] == ("https://x.example/en-b", "damaged_record")
    assert rows(write("digest.warc", b"".join(changed)), verify_digests=False)[5]["fault"] is None

    headless = [*records[:5], b"garbage that is no record\r\n\r\n", *records[5:]]
    assert len(rows(write("garbage.warc", b"".join(headless)))) == len(records) - 1


def test_large_pages_are_set_aside(write: Write) -> None:
    found = rows(write("c.warc", b"".join(small_crawl())), max_page_bytes=300)
    assert [row["fault"] for row in found].count("too_large") == 6


@pytest.mark.parametrize("name", ["c.warc", "c.warc.gz"])
def test_a_file_cut_off_is_an_error(write: Write, name: str) -> None:
    records = small_crawl()
    whole = zipped(*records) if name.endswith("gz") else b"".join(records)
    cuts = range(len(whole) - 30, len(whole) - 4) if name.endswith("gz") else range(len(whole) - 300, len(whole) - 4)
    for cut in (*cuts, len(whole) // 2 + 7):
        with pytest.raises(InputError, match=rf"{name} is cut off"):
            rows(write(name, whole[:cut]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.warc", b"<html><body>hello</body></html>", "is not a WARC file"),
        ("c.warc.gz", gzip.compress(b"hello"), "is not a WARC file"),
        ("c.warc.gz", b"hello", "is not a WARC file"),
        ("c.warc", b"", "is empty"),
        ("c.warc", small_crawl()[0], "no response record"),
        ("c.warc.gz", zipped(small_crawl()[0]), "no response record"),
        ("c.zip", b"PK", "no known format"),
        ("c.parquet", b"PAR1 but not really", "cannot be read as parquet"),
        ("c.jsonl", b"not json\n[1]\n", "no line is a JSON object with text"),
        ("c.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 100)[:-5], "is cut off"),
    ],
)  # fmt: skip
def test_bad_files_are_named_with_a_remedy(write: Write, name: str, content: bytes, message: str) -> None:
    path = write(name, content)
    with pytest.raises(InputError, match=message) as caught:
        rows(path)
    assert str(path) in caught.value.what
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_missing_sources(tmp_path: Path) -> None:
    for source, message in (
        (tmp_path / "none.warc", "does not exist"),
        (tmp_path / "*.warc", "matches no file"),
        (tmp_path, "is a folder"),
        ("nosuchscheme://x/y.warc", "cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            rows(source)
    with pytest.raises(InputError, match="no source"):
        rows()


def test_globs_are_sorted_and_names_differ(write: Write) -> None:
    for name in ("b/part.jsonl", "a/part.jsonl", "c.jsonl"):
        write(name, json.dumps({"text": name}).encode())
    folder = write("x", b"").parent
    found = rows(f"{folder}/*/part.jsonl", f"{folder}/c.jsonl", f"{folder}/a/part.jsonl")
    assert [row["id"] for row in found] == ["a/part.jsonl#0", "b/part.jsonl#0", "c.jsonl#0"]


def test_jsonl(write: Write) -> None:
    lines = [{"text": "Grüße", "url": "u", "date": 2026}, {"other": 1}, {"text": None}, {"text": "y"}]
    content = "\n".join(json.dumps(line) for line in lines).encode() + b"\n{broken\n\n"
    for path in (write("c.jsonl", content), write("c.ndjson.gz", gzip.compress(content))):
        found = rows(path)
        assert [row["fault"] for row in found] == [None, "no_text", "no_text", None, "damaged_record"]
        assert (found[0]["payload"], found[0]["url"], found[0]["date"]) == ("Grüße".encode(), "u", "2026")
        assert not found[0]["html"]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"body": ["one", None, "two"], "url": ["u", "v", "w"]}), path)
    found = rows(path, text_column="body")
    assert [(row["payload"], row["url"], row["fault"]) for row in found] == [
        (b"one", "u", None), (b"", "", "no_text"), (b"two", "w", None)
    ]  # fmt: skip
    with pytest.raises(InputError, match="no column 'text'; it has body, url"):
        rows(path)
    pq.write_table(pa.table({"text": [1]}), path)
    with pytest.raises(InputError, match="is int64, not text"):
        rows(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read as parquet"):
        rows(path)
