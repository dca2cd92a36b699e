"""Pages made to break parsers: each costs itself, is counted, and leaves its neighbors as they were."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq

from herdlm.curate.config import CurateConfig
from herdlm.curate.pipeline import curate
from tests.curate.crawls import Write, article, page, record, zipped

NOISE = random.Random(0).randbytes(200_000)
HOSTILE = {
    "nested": b"<html><body>" + b"<div>" * 200_000 + b"deep" + b"</div>" * 200_000,
    "nested-inline": b"<b><i>" * 100_000 + b"deep",
    "nested-table": b"<table><tr><td>" * 30_000,
    "nested-list": b"<ul><li>" * 100_000,
    "binary": NOISE,
    "binary-in-html": b"<html><body><p>" + NOISE,
    "nulls": b"<p>" + b"\0" * 100_000,
    "null-words": b"<p>" + "\0".join(article("en", "null")).encode(),
    "utf-16-as-utf-8": "<p>Ünïcödé</p>".encode("utf-16"),
    "wrong-charset": "<meta charset=utf-16><p>Grüße</p>".encode("latin-1"),
    "no-such-charset": b"<meta charset=klingon><p>\xff\xfe\xfd</p>",
    "attributes": b"<p " + b"a=1 " * 200_000 + b">text",
    "unclosed": b"<!--" + b"x" * 500_000,
    "one-word": b"<p>" + b"a" * 3_000_000,
    "entities": b"<p>" + b"&#x110000;&#0;&#xd800;&nosuch;" * 20_000,
    "cdata": b"<![CDATA[" * 50_000,
    "surrogates": b"<p>\xed\xa0\x80\xed\xb0\x80</p>" * 1000,
    "nothing": b"",
}


def test_hostile_pages_cost_themselves(write: Write, tmp_path: Path) -> None:
    good = [record(f"https://x.example/{i}", page(article("en", f"{i}"), article("en", f"{i} more"))) for i in range(4)]
    bad = [record(f"https://bad.example/{name}", content) for name, content in HOSTILE.items()]
    bad.append(record("https://bad.example/x%00y", b"<p>null in the address</p>"))
    out = tmp_path / "out"
    out.mkdir()
    crawl = write("c.warc.gz", zipped(*good[:2], *bad, *good[2:]))
    funnel = curate([str(crawl)], out, CurateConfig(workers=1), quiet=True)
    assert funnel["input"]["documents"] == len(good) + len(bad)
    documents = pq.read_table(out / "documents").to_pylist()
    assert [row["url"] for row in documents if "x.example" in row["url"]] == [
        f"https://x.example/{i}" for i in range(4)
    ]
    dropped = pq.read_table(out / "dropped").to_pylist()
    assert len(documents) + len(dropped) == len(good) + len(bad)
    assert not [row for row in documents if "\0" in row["text"]]
