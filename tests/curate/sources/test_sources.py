"""Reading every kind of source, whole and broken, under any division into shards."""

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
from herdlm.curate.sources.find import find_sources
from herdlm.curate.sources.page import Page
from herdlm.curate.sources.reach import Reach
from herdlm.curate.sources.read import read_shard
from herdlm.curate.sources.shards import check_pages, plan_shards
from tests.curate.crawls import Write, page, record, small_crawl, zipped


def read(*sources: object, **keys: Any) -> list[Page]:
    """All pages of some sources, and the checks of what every file gave."""
    config = CurateConfig(**keys)
    files = find_sources([str(source) for source in sources], config)
    found: list[Page] = []
    by_file: dict[int, list[Page]] = {number: [] for number in range(len(files))}
    last = -1
    for shard in plan_shards(files, config):
        first, behind = shard.rows
        assert first > last or first == 0
        for each in read_shard(shard, Reach(shard.begin, shard.end), config):
            assert first <= (shard.file_number << 40) + each.number < behind
            assert (shard.file_number << 40) + each.number > last
            last = (shard.file_number << 40) + each.number
            by_file[shard.file_number].append(each)
            found.append(each)
    for number, file in enumerate(files):
        check_pages(file, len(by_file[number]), sum(p.fault is None for p in by_file[number]), config)
    return found


@pytest.mark.parametrize("name", ["crawl.warc", "crawl.warc.gz"])
def test_warc(write: Write, name: str) -> None:
    records = small_crawl()
    packed = [zipped(each) if name.endswith("gz") else each for each in records]
    found = read(write(name, b"".join(packed)))
    assert len(found) == len(records) - 1  # all but the warcinfo record
    assert [p.number for p in found] == [len(b"".join(packed[:i])) for i in range(1, len(packed))]
    assert found[0].url == "https://x.example/en-a"
    assert found[0].date == "2026-01-02T03:04:05Z"
    assert found[0].payload.startswith(b"<!DOCTYPE html>")
    assert [p.fault for p in found[:4]] == [None, "http_status", "not_html", None]


@pytest.mark.parametrize("name", ["crawl.warc", "crawl.warc.gz", "crawl.jsonl"])
def test_shards_of_any_size_give_the_same_pages(write: Write, name: str) -> None:
    records = small_crawl() * 3
    lines = [json.dumps({"text": f"line {i} " * (i % 7)}).encode() + b"\n" for i in range(60)]
    content = {"crawl.warc": b"".join(records), "crawl.warc.gz": zipped(*records), "crawl.jsonl": b"".join(lines)}
    path = write(name, content[name])
    whole = read(path)
    for size in (100, 333, 1000, 5000):
        config = CurateConfig(shard_megabytes=size / 1e6)
        shards = plan_shards(find_sources([str(path)], config), config)
        assert len(shards) == max(round(len(content[name]) / size), 1)
        assert read(path, shard_megabytes=size / 1e6) == whole


def test_one_member_for_all_records_reads_the_same(write: Write) -> None:
    records = small_crawl()
    apart, together = write("a/c.warc.gz", zipped(*records)), write("b/c.warc.gz", gzip.compress(b"".join(records)))
    assert [p.payload for p in read(apart)] == [p.payload for p in read(together)]
    assert [p.number for p in read(together)] == list(range(1, len(records)))


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
    (found,) = read(write("c.warc", data))
    assert found.payload == body
    assert found.charset.lower() == "iso-8859-1"


def test_a_page_that_unpacks_to_too_much_is_set_aside(write: Write) -> None:
    packed = gzip.compress(b"<p>" + bytes(50 << 20))
    bomb = record("https://x.example/bomb", packed, media="text/html\r\nContent-Encoding: gzip")
    assert [p.fault for p in read(write("c.warc", bomb + small_crawl()[1]))] == ["too_large", None]


def test_a_response_that_is_no_http_message_is_set_aside(write: Write) -> None:
    odd = record("https://x.example/odd", b"220 mail.x.example ESMTP\r\n", kind="resource")
    odd = odd.replace(b"WARC-Type: resource", b"WARC-Type: response")
    assert [p.fault for p in read(write("c.warc", odd + small_crawl()[1]))] == ["not_http", None]


def test_a_damaged_record_costs_its_page_only(write: Write) -> None:
    records = small_crawl()
    packed = [bytearray(zipped(each)) for each in records]
    packed[3][-20] ^= 0xFF
    found = read(write("gz.warc.gz", b"".join(packed)))
    assert len(found) == len(records) - 1
    assert [p.fault for p in found].count("damaged_record") == 1
    assert found[-1].url == "https://x.example/empty"

    changed = [bytearray(each) for each in records]
    changed[6] = changed[6].replace(b"<p>", b"<q>", 1)  # no longer what its digest says
    found = read(write("digest.warc", b"".join(changed)))
    assert [(p.url, p.fault) for p in found][5] == ("https://x.example/en-b", "damaged_record")
    assert read(write("digest.warc", b"".join(changed)), verify_digests=False)[5].fault is None

    headless = [*records[:5], b"garbage that is no record\r\n\r\n", *records[5:]]
    found = read(write("garbage.warc", b"".join(headless)))
    assert [p.fault for p in found].count("damaged_record") == 1
    assert [p.payload for p in found if p.fault is None] == [
        p.payload for p in read(write("whole.warc", b"".join(records))) if p.fault is None
    ]


@pytest.mark.parametrize("name", ["c.warc", "c.warc.gz"])
@pytest.mark.parametrize("length", [b"3", b"100", b"3000", b"99999", b"999999999999", b"-5", b"many"])
def test_a_wrong_record_length_costs_its_page_only(write: Write, name: str, length: bytes) -> None:
    records = small_crawl()
    head, _, block = records[5].partition(b"\r\n\r\n")
    bad = head[: head.rindex(b" ") + 1] + length + b"\r\n\r\n" + block
    pack = zipped if name.endswith("gz") else lambda *all: b"".join(all)
    good = read(write(f"good/{name}", pack(*records)))
    found = read(write(name, pack(*records[:5], bad, *records[6:])), max_page_bytes=1 << 20)
    assert [p.url for p in found if p.fault is None] == [p.url for i, p in enumerate(good) if i != 4 and not p.fault]
    assert [p.fault for p in found].count("damaged_record") == 1


@pytest.mark.parametrize("name", ["c.warc", "c.warc.gz"])
def test_a_large_page_is_set_aside_without_being_held(write: Write, name: str) -> None:
    import tracemalloc

    records = small_crawl()
    large = record("https://x.example/large", b"<p>" + b"word " * (20 << 20))  # 100 MB
    pack = zipped if name.endswith("gz") else lambda *all: b"".join(all)
    path = write(name, pack(*records[:3], large, *records[3:]))
    del large
    tracemalloc.start()
    found = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(p.url, p.payload) for p in found if p.fault == "too_large"] == [("https://x.example/large", b"")]
    assert len(found) == len(records)
    assert peak < 60e6


def test_large_pages_are_set_aside(write: Write) -> None:
    found = read(write("c.warc", b"".join(small_crawl())), max_page_bytes=300)
    assert [p.fault for p in found].count("too_large") == 6


@pytest.mark.parametrize("name", ["c.warc", "c.warc.gz"])
def test_a_file_cut_off_costs_the_record_it_is_cut_in(write: Write, name: str) -> None:
    records = small_crawl()
    packed = [zipped(each) if name.endswith("gz") else each for each in records]
    whole = b"".join(packed)
    good = [p.url for p in read(write(f"good/{name}", whole))]
    cuts = range(len(whole) - 30, len(whole)) if name.endswith("gz") else range(len(whole) - 300, len(whole) - 4)
    for cut in (*cuts, len(whole) // 2 + 7):
        complete = sum(len(b"".join(packed[: i + 1])) <= cut for i in range(len(packed)))
        found = read(write(name, whole[:cut]))
        assert [p.url for p in found[: complete - 1]] == good[: complete - 1]
        assert [p.fault for p in found[complete - 1 :]] == ["cut_off"]


def test_records_within_a_page_are_not_records_of_the_crawl(write: Write) -> None:
    """A crawl that someone offers for download is a page's content, wherever a shard begins in it."""
    from herdlm.curate.pipeline import curate

    inner = zipped(*(record(f"https://inner.example/{i}", page(f"inner {i} " * 20)) for i in range(40)))
    plain = b"".join(record(f"https://inner.example/{i}", page(f"inner {i} " * 20)) for i in range(40))
    for name, content in (("c.warc.gz", inner), ("c.warc", plain)):
        outer = [*small_crawl(), record("https://x.example/download", content, media="text/html"), *small_crawl()[1:]]
        packed = b"".join(gzip.compress(one, compresslevel=0, mtime=0) for one in outer)  # stored as it is
        path = write(name, packed if name.endswith("gz") else b"".join(outer))
        results = []
        for number, size in enumerate((1e6, len(packed) / 13)):
            out = path.parent / f"{name}-{number}"
            out.mkdir()
            config = CurateConfig(workers=1, shard_megabytes=size / 1e6)
            results.append(curate([str(path)], out, config, quiet=True))
        assert results[0]["input"]["documents"] == 21
        assert results[1] == results[0], name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.warc", b"<html><body>hello</body></html>", "is not a WARC file"),
        ("c.warc.gz", gzip.compress(b"hello", mtime=0), "is not a WARC file"),
        ("c.warc.gz", b"hello", "is not a WARC file"),
        ("c.warc.gz", b"\x1f\x8b\x08 and nothing else", "is not a WARC file"),
        ("c.warc", b"", "is empty"),
        ("c.warc", small_crawl()[0], "no response, resource"),
        ("c.warc.gz", zipped(small_crawl()[0]), "no response, resource"),
        ("c.zip", b"PK", "an unknown format"),
        ("c.parquet", b"PAR1 but not really", "cannot be read as parquet"),
        ("c.jsonl", b"not json\n[1]\n", "no line is a JSON object with text"),
        ("c.jsonl.gz", b"not gzip", "no line is a JSON object with text"),
        ("c.jsonl.zst", b"not zstd", "no line is a JSON object with text"),
    ],
)
def test_bad_files_are_named_with_a_remedy(write: Write, name: str, content: bytes, message: str) -> None:
    path = write(name, content)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) in caught.value.what
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_missing_sources(tmp_path: Path) -> None:
    for source, message in (
        (tmp_path / "none.warc", "does not exist"),
        (tmp_path / "*.warc", "matches no file"),
        (tmp_path, "is a folder without source code"),
        ("nosuchscheme://x/y.warc", "cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            read(source)
    with pytest.raises(InputError, match="no source"):
        read()


def test_globs_are_sorted_and_names_differ(write: Write) -> None:
    for name in ("b/part.jsonl", "a/part.jsonl", "c.jsonl"):
        write(name, json.dumps({"text": name}).encode())
    folder = write("x", b"").parent
    config = CurateConfig()
    files = find_sources([f"{folder}/*/part.jsonl", f"{folder}/c.jsonl", f"{folder}/a/part.jsonl"], config)
    assert [file.name for file in files] == ["a/part.jsonl", "b/part.jsonl", "c.jsonl"]
    texts = [p.payload.decode() for p in read(f"{folder}/*/part.jsonl", f"{folder}/c.jsonl")]
    assert texts == ["a/part.jsonl", "b/part.jsonl", "c.jsonl"]


@pytest.mark.parametrize("packed", [True, False])
def test_lists_of_paths_are_common_crawls(write: Write, packed: bool) -> None:
    paths = [
        "crawl-data/CC-MAIN-2026-01/segments/1.2/warc/a.warc.gz",
        "crawl-data/CC-MAIN-2026-01/segments/3/b.warc.gz",
    ]
    for number, path in enumerate(paths):
        write(path, zipped(record(f"https://x.example/{number}", page("hello"))))
    content = "\n".join(paths).encode() + b"\n"
    name = "crawl-data/CC-MAIN-2026-01/warc.paths" + (".gz" if packed else "")
    found = read(write(name, gzip.compress(content) if packed else content))
    assert [p.url for p in found] == ["https://x.example/0", "https://x.example/1"]
    with pytest.raises(InputError, match=r"gone\.warc.*listed in .*warc\.paths.* does not exist"):
        read(write(name, gzip.compress(b"gone.warc\n") if packed else b"gone.warc\n"))


def test_jsonl(write: Write) -> None:
    lines = [{"text": "Grüße", "url": "u", "date": 2026}, {"other": 1}, {"text": None}, {"text": "y"}]
    content = "\n".join(json.dumps(line) for line in lines).encode() + b"\n{broken\n\n" + b'{"text": "\\u0000\\ud800"}'
    zstd = pa.Codec("zstd").compress(content, asbytes=True)
    for path in (
        write("c.jsonl", content),
        write("c.ndjson.gz", gzip.compress(content)),
        write("two.jsonl.gz", gzip.compress(content[:9]) + gzip.compress(content[9:])),
        write("c.jsonl.zst", zstd),
    ):
        found = read(path)
        assert [p.fault for p in found] == [None, "no_text", "no_text", None, "damaged_record", None]
        assert (found[0].payload, found[0].url, found[0].date) == ("Grüße".encode(), "u", "2026")
        assert found[0].kind == "text"
    deep = b'{"text": ' + b"[" * 100_000 + b"\n"
    assert next(p.fault for p in read(write("deep.jsonl", deep + content))) == "damaged_record"


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz", "c.jsonl.zst"])
def test_long_lines_are_set_aside_without_being_held(write: Write, name: str) -> None:
    content = b'{"text": "a"}\n{"text": "' + b"x" * (1 << 20) + b'"}\n{"text": "b"}\n{"text": "' + b"x" * 2000 + b'"}'
    pack = {"c.jsonl": bytes, "c.jsonl.gz": gzip.compress, "c.jsonl.zst": pa.Codec("zstd").compress}[name]
    found = read(write(name, bytes(pack(content))), max_page_bytes=1000)
    assert [(p.payload[:1], p.fault) for p in found] == [
        (b"a", None),
        (b"", "too_large"),
        (b"b", None),
        (b"x", "too_large"),
    ]


@pytest.mark.parametrize("name", ["c.jsonl.gz", "c.jsonl.zst"])
def test_compressed_lines_cut_off_or_damaged_cost_the_rest(write: Write, name: str) -> None:
    import random

    rng = random.Random(0)
    content = b"".join(b'{"text": "%032x"}\n' % rng.getrandbits(128) for _ in range(20_000))
    whole = gzip.compress(content) if name.endswith("gz") else pa.Codec("zstd").compress(content, asbytes=True)
    found = read(write(name, whole[: len(whole) * 2 // 3]))
    assert found[-1].fault == "cut_off"
    assert len(found) > 10_000
    assert all(p.fault is None for p in found[:-1])
    if name.endswith("gz"):  # Zstandard's checksums are optional, and often left out
        broken = bytearray(whole)
        broken[len(whole) * 2 // 3 : len(whole) * 2 // 3 + 9] = b"\xff" * 9
        found = read(write(name, bytes(broken)))
        assert len(found) > 10_000
        assert [p.fault for p in found].count("damaged_record") >= 1


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"body": ["one", None, "two"], "url": ["u", "v", "w"]}), path)
    found = read(path, text_column="body")
    assert [(p.number, p.payload, p.url, p.fault) for p in found] == [
        (0, b"one", "u", None),
        (1, b"", "v", "no_text"),
        (2, b"two", "w", None),
    ]
    with pytest.raises(InputError, match="no column 'text'; it has body, url"):
        read(path)
    pq.write_table(pa.table({"text": [1]}), path)
    with pytest.raises(InputError, match="is int64, not text"):
        read(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read as parquet"):
        read(path)


def test_parquet_is_divided_by_row_groups_and_a_damaged_one_costs_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    texts = [f"text {i} " + "abcdefghij" * 50 for i in range(40)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10, compression="none", use_dictionary=False)
    assert [p.payload.decode() for p in read(path, shard_megabytes=0.005)] == texts
    config = CurateConfig(shard_megabytes=0.005)
    shards = plan_shards(find_sources([str(path)], config), config)
    assert [(shard.begin, shard.end) for shard in shards] == [(0, 10), (10, 20), (20, 30), (30, 40)]
    column = pq.ParquetFile(path).metadata.row_group(2).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    for size in (0.005, 1.0):
        found = read(path, shard_megabytes=size)
        assert [p.number for p in found] == list(range(40))
        assert [p.number for p in found if p.fault == "damaged_record"] == list(range(20, 30))


def test_plain_text(write: Write) -> None:
    one, two = write("a.txt", "Grüße".encode("latin-1")), write("b.txt", b"x" * 2000)
    found = read(one, two, max_page_bytes=1000)
    assert [(p.payload, p.kind, p.fault) for p in found] == [
        ("Grüße".encode("latin-1"), "text", None),
        (b"", "text", "too_large"),
    ]
    assert found[0].url == str(one)


def test_source_code(write: Write, tmp_path: Path) -> None:
    files = {
        "src/main.py": b"print('hello')\n",
        "src/lib.rs": b"fn main() {}\n",
        "Makefile": b"all:\n\ttrue\n",
        "logo.png": b"\x89PNG\0",
        "blob.c": b"int x;\0\0",
        "made.go": b"// Code generated by x. DO NOT EDIT.\n",
        "lib.min.js": b"var a=1",
        "packed.js": b"a" * 5000,
        "package-lock.json": b"{}",
        ".git/config.py": b"x = 1",
        "data.unknown": b"?",
    }
    for name, content in files.items():
        write(f"tree/{name}", content)
    for size in (16.0, 1e-5):
        found = read(tmp_path / "tree", shard_megabytes=size)
        assert {p.url.removeprefix("tree/"): (p.language, p.fault) for p in found} == {
            "src/main.py": ("code-python", None),
            "src/lib.rs": ("code-rust", None),
            "Makefile": ("code-make", None),
            "logo.png": ("", "unknown_code"),
            "data.unknown": ("", "unknown_code"),
            "blob.c": ("code-c", "binary_file"),
            "made.go": ("code-go", "generated_code"),
            "lib.min.js": ("code-javascript", "packed_code"),
            "packed.js": ("code-javascript", "packed_code"),
            "package-lock.json": ("code-json", "generated_code"),
        }
        assert [p.number for p in found] == list(range(10))
