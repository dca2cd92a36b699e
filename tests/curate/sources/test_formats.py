"""Corpora as people have them: nested columns, datasets' folders, Arrow, UTF-16, and what is told of wrong columns."""

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
from herdlm.curate.first_pass import check_pages
from herdlm.curate.sources.columns import is_address
from herdlm.curate.sources.find import find_sources
from tests.curate.crawls import Write, article, page, record
from tests.curate.sources.test_sources import read

ROWS = [{"text": article("en", key), "url": f"https://x.example/{key}", "date": "2024-01-02"} for key in "abc"]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def urls(*sources: object, **keys: Any) -> list[str]:
    return [found.url for found in read(*sources, **keys)]


@pytest.mark.parametrize(
    ("fields", "url", "date"),
    [
        (
            {"url": "https://a.example/", "timestamp": "2019-04-25T12:57:54Z"},
            "https://a.example/",
            "2019-04-25T12:57:54Z",
        ),
        ({"metadata": {"url": "https://a.example/"}, "created": "2020-01-01"}, "https://a.example/", "2020-01-01"),
        (
            {"metadata.url": "https://a.example/", "date": "2021-01-01", "created": "x"},
            "https://a.example/",
            "2021-01-01",
        ),
        ({"meta": {"url": None}, "metadata": "none"}, "", ""),
    ],
)
def test_addresses_and_dates_of_known_corpora(write: Write, fields: dict[str, Any], url: str, date: str) -> None:
    row = {"text": "some text", **fields}
    for name in ("c4-train.00000-of-01024.json.gz", "a.jsonl.gz"):
        (found,) = read(write(name, gzip.compress(lines([row]))))
        assert (found.url, found.date, found.payload) == (url, date, b"some text")


def test_nested_columns_of_parquet(tmp_path: Path) -> None:
    rows = [{"body": {"raw": row["text"]}, "metadata": {"url": row["url"], "date": row["date"]}} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", text_column="body.raw")
    assert [(p.payload.decode(), p.url, p.date) for p in found] == [(r["text"], r["url"], r["date"]) for r in ROWS]
    with pytest.raises(InputError, match=r"no column 'metadata.uri'.*metadata.url"):
        read(tmp_path / "a.parquet", text_column="body.raw", url_column="metadata.uri")
    with pytest.raises(InputError, match="not text"):
        read(tmp_path / "a.parquet", text_column="body")


def arrow(path: Path, stream: bool, rows: list[dict[str, Any]] = ROWS) -> Path:
    table = pa.Table.from_pylist(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["a.arrow", "a.feather"])
def test_arrow(tmp_path: Path, name: str, stream: bool) -> None:
    path = arrow(tmp_path / name, stream)
    assert [(p.number, p.url, p.payload.decode()) for p in read(path)] == [
        (i, row["url"], row["text"]) for i, row in enumerate(ROWS)
    ]
    with pytest.raises(InputError, match="no column 'content'"):
        read(path, text_column="content")
    if stream:
        path.write_bytes(path.read_bytes()[:-600])
        found = read(path)
        assert [p.fault for p in found][-1] == "cut_off" and found[0].url == ROWS[0]["url"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
def test_utf_16(write: Write, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in ROWS)
    assert urls(write("a.jsonl", (mark + text).encode(encoding)), shard_megabytes=0.001) == [row["url"] for row in ROWS]
    code = write("repo/a.py", (mark + "x = 1  # ä\n" * 20).encode(encoding))
    assert read(code.parent)[0].fault is None


def test_a_row_group_of_pages_is_checked_for_the_columns_that_are_named(write: Write) -> None:
    path = write("a.jsonl", lines(ROWS))
    (file,) = find_sources([str(path)], CurateConfig())
    for keys, found, message in (
        ({"url_column": "link"}, {"url": 0, "address": 0, "date": 3}, "'link', which curate.url_column names"),
        ({"date_column": "day"}, {"url": 3, "address": 3, "date": 0}, "'day', which curate.date_column names"),
        ({}, {"url": 3, "address": 0, "date": 3}, "are none"),
    ):
        with pytest.raises(InputError, match=message):
            check_pages(file, 3, 3, CurateConfig(**keys), found)
    check_pages(file, 3, 3, CurateConfig(), {"url": 0, "address": 0, "date": 0})


def test_curation_tells_of_columns_that_are_absent(write: Write, tmp_path: Path) -> None:
    from herdlm.curate.pipeline import curate

    path = write("a.jsonl", lines([{"text": row["text"], "url": "Chapter 1"} for row in ROWS]))
    for keys, message in (({"url_column": "link"}, "'link'"), ({}, "addresses")):
        (tmp_path / message).mkdir()
        with pytest.raises(InputError, match=message):
            curate([str(path)], tmp_path / message, CurateConfig(workers=1, **keys), quiet=True)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://x.example/a", True),
        ("x.example/a?b", True),
        ("www.x.example", True),
        ("urn:isbn:123", True),
        ("Chapter 1", False),
        ("42", False),
        ("a/b", False),
    ],
)
def test_addresses(url: str, expected: bool) -> None:
    assert is_address(url) is expected


def test_columns_by_pattern(write: Write) -> None:
    first = write(
        "dolma/a.json.gz", gzip.compress(lines([{"content": "one", "where": {"link": "https://a.example/"}}]))
    )
    second = write("b.jsonl", lines([{"text": "two", "url": "https://b.example/"}]))
    columns = {"*.json.gz": {"text_column": "content", "url_column": "where.link"}}
    assert urls(first, second, columns=columns) == ["https://a.example/", "https://b.example/"]
    odd = write("c.data", lines([{"text": "three", "url": "https://c.example/"}]))
    assert urls(odd, columns={"*.data": {"format": "jsonl"}}) == ["https://c.example/"]
    with pytest.raises(InputError, match="matches no source"):
        read(first, columns={"*.csv": {"text_column": "x"}})


CARD = "---\nlicense: odc-by\n{}---\n# Wheels\n\nThis is a dataset card.\n"


def dataset(folder: Path, card: str) -> Path:
    for part, rows in {
        "data/train-00000-of-00001.parquet": ROWS[:2],
        "data/test-00000-of-00001.parquet": ROWS[2:],
    }.items():
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / part)
    (folder / "README.md").write_text(CARD.format(card))
    (folder / ".gitattributes").write_text("*.parquet filter=lfs\n")
    (folder / ".cache").mkdir(exist_ok=True)
    (folder / ".cache" / "x.jsonl").write_text('{"text": "left by a download"}\n')
    return folder


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("", ["c", "a", "b"]),
        ("configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n", ["a", "b"]),
        ('configs:\n- config_name: default\n  data_files: "data/test-*.parquet"\n', ["c"]),
        ("configs:\n- config_name: x\n  data_files:\n  - data/train-00000-of-00001.parquet\n", ["a", "b"]),
        ("configs:\n- config_name: x\n  data_dir: data\n", ["c", "a", "b"]),
    ],
)
def test_a_dataset_is_read_by_its_card_or_its_layout(tmp_path: Path, card: str, expected: list[str]) -> None:
    folder = dataset(tmp_path / "d", card)
    assert urls(folder) == [f"https://x.example/{key}" for key in expected]


def test_a_card_whose_files_are_not_there_is_told(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d", "configs:\n- config_name: x\n  data_files: other/*.parquet\n")
    with pytest.raises(InputError, match=r"names other/\*.parquet"):
        read(folder)


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    for split, rows in {"train": ROWS[:2], "test": ROWS[2:]}.items():
        arrow(tmp_path / "d" / split / "data-00000-of-00001.arrow", True, rows)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
        (tmp_path / "d" / split / "state.json").write_text(json.dumps(state))
        (tmp_path / "d" / split / "dataset_info.json").write_text("{}")
        arrow(tmp_path / "d" / split / "cache-123.arrow", True, rows)  # what maps left, which is no data
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert urls(tmp_path / "d" / "train") == ["https://x.example/a", "https://x.example/b"]
    assert urls(tmp_path / "d") == ["https://x.example/c", "https://x.example/a", "https://x.example/b"]


def test_data_beside_source_code(write: Write) -> None:
    write("repo/tests/data.jsonl", lines(ROWS[:1]))
    code = write("repo/main.py", b"print('hello')\n" * 200)
    assert [p.url for p in read(code.parent) if p.fault is None] == ["repo/main.py"]
    write("repo/big.jsonl", lines(ROWS * 20))
    with pytest.raises(InputError, match="more data beside it") as caught:
        read(code.parent)
    assert "*.jsonl" in caught.value.remedy
    crawl = write("crawl/a.warc", record("https://x.example/", page(article("en", "a"))))
    assert urls(crawl.parent) == ["https://x.example/"]
