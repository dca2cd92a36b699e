"""Records with values that no file can hold: each costs itself and is counted; a curation goes on."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from herdlm.base.errors import InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.duplicates.url import normalize_url
from herdlm.curate.pipeline import curate
from herdlm.curate.sources.find import find_sources
from herdlm.curate.sources.hashes import MEMORY, source_content
from tests.curate.crawls import Write, article

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("half a character in the address", {"url": "https://x.example/\ud800"}, "damaged_record"),
    ("half a character in the date", {"date": "\ud8002024-01-01"}, "damaged_record"),
    ("an address of a million characters", {"url": "https://x.example/" + "a" * 1_000_000}, "long_address"),
    ("a date of a thousand characters", {"date": "2024" * 250}, "damaged_record"),
    ("no text", {"text": ["a"]}, "no_text"),
]
ODD: list[dict[str, Any]] = [
    {"date": "99999-01-01"},
    {"date": 10**18},
    {"date": "0001-01-01T00:00:00+23:59"},
    {"date": "9999-12-31T23:59:59-23:59"},
    {"date": -1e300},
    {"url": "https://" + "\u00fc" * 8000},
    {"url": "https://x.example:99999999/"},
    {"url": "https://[::1/"},
    {"url": 3},
    {"url": {"a": ["b" * 9000]}},  # a table is no address
    {"url": None, "date": None},
]


def row(number: int, **changes: Any) -> dict[str, Any]:
    address = f"https://good{number}.example/page"
    return {"text": article("en", str(number)), "url": address, "date": "2024-05-01"} | changes


def curated(path: Path, tmp_path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    out = tmp_path / "out"
    out.mkdir()
    curate([str(path)], out, CurateConfig(workers=1), quiet=True)
    return pq.read_table(out / "documents").to_pylist(), pq.read_table(out / "dropped").to_pylist()


def test_a_record_that_no_file_can_hold_is_counted(write: Write, tmp_path: Path) -> None:
    rows = [row(0)]
    for number, (_, changes, _) in enumerate(BAD, 1):
        rows += [row(100 + number, **changes), row(number)]
    rows += [row(200 + number, **changes) for number, changes in enumerate(ODD)]
    lines = [json.dumps(each) for each in rows] + ['{"text": 1' + "0" * 5000 + "}", "[" * 100_000]
    documents, dropped = curated(write("in.jsonl", "\n".join(lines).encode()), tmp_path)
    reasons = [each["reason"] for each in dropped]
    for reason in {reason for _, _, reason in BAD}:
        expected = sum(each == reason for _, _, each in BAD) + 2 * (reason == "damaged_record")
        assert reasons.count(reason) == expected, (reason, reasons)
    kept = {each["url"] for each in documents}
    assert {f"https://good{number}.example/page" for number in range(len(BAD) + 1)} <= kept
    assert len(documents) + len(dropped) == len(lines)
    assert all(len(each["url"] or "") < 10_000 for each in dropped)


def test_times_and_bytes_that_python_has_not_cost_their_rows(tmp_path: Path) -> None:
    texts = [article("en", str(number)) for number in range(6)]
    times = [0, 10**6, 2**62, -(2**62), 10**12, None]  # microseconds; two are beyond the year 9999
    table = pa.table({"text": texts, "date": pa.array(times, pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "in.parquet")
    documents, dropped = curated(tmp_path / "in.parquet", tmp_path)
    assert [each["reason"] for each in dropped] == ["damaged_record"] * 2
    assert len(documents) == 4


def test_bytes_that_are_no_text_cost_their_row(tmp_path: Path) -> None:
    texts = [article("en", str(number)).encode() for number in range(3)] + [b"\xff\xfe broken"]
    column = pa.array(texts, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "in.parquet")
    documents, dropped = curated(tmp_path / "in.parquet", tmp_path)
    assert (len(documents), [each["reason"] for each in dropped]) == (3, ["damaged_record"])


def test_a_source_whose_name_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a\udcff.jsonl").write_text("{}")
    with pytest.raises(InputError, match="is not UTF-8"):
        find_sources([str(tmp_path / "*.jsonl")], CurateConfig())


def test_the_normal_form_of_a_long_host_is_stable() -> None:
    url = "https://" + "\u00fc" * 8000 + "/"
    assert normalize_url(normalize_url(url)) == normalize_url(url)


@pytest.mark.parametrize("content", [b"", b"[]", b'{\n "/x|1|2": "abc', b"null", b"[" * 100_000, b"\xff", None])
def test_a_damaged_memory_of_hashes_costs_time_only(write: Write, tmp_path: Path, content: bytes | None) -> None:
    config = CurateConfig()
    source = write("in.jsonl", json.dumps(row(1)).encode())
    expected = source_content(str(source), config, tmp_path)
    whole = (tmp_path / MEMORY).read_bytes()
    if content is None:  # a hash that somebody changed
        stored = json.loads(whole)
        content = json.dumps(stored | {"hashes": dict.fromkeys(stored["hashes"], "0" * 64)}).encode()
    (tmp_path / MEMORY).write_bytes(content)
    assert source_content(str(source), config, tmp_path) == expected
    assert (tmp_path / MEMORY).read_bytes() == whole


def test_a_flipped_bit_in_the_memory_never_changes_a_hash(write: Write, tmp_path: Path) -> None:
    config, draw = CurateConfig(), random.Random(1)
    source = write("in.jsonl", json.dumps(row(1)).encode())
    expected = source_content(str(source), config, tmp_path)
    whole = (tmp_path / MEMORY).read_bytes()
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        (tmp_path / MEMORY).write_bytes(damaged)
        assert source_content(str(source), config, tmp_path) == expected


def test_what_a_killed_worker_left_is_not_published(write: Write, tmp_path: Path) -> None:
    from herdlm.curate.assemble import DOCUMENTS, DROPPED
    from herdlm.curate.pipeline import HOSTS, _publish

    result, out = tmp_path / "result", tmp_path / "out"
    for kind in (DOCUMENTS, DROPPED):
        (result / kind).mkdir(parents=True)
        (result / kind / "part-00000.parquet").write_bytes(b"PAR1")
        (result / kind / ".part-00000.parquet.8436.tmp").write_bytes(b"PAR1")
    (result / HOSTS).write_text("{}")
    out.mkdir()
    _publish(result, out, {}, {}, {})
    for kind in (DOCUMENTS, DROPPED):
        assert [path.name for path in (out / kind).iterdir()] == ["part-00000.parquet"]
