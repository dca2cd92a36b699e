"""Curation end to end on a small crawl of which every step has something to drop."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from herdlm.base.errors import InputError
from herdlm.base.recipe import parse
from herdlm.curate.config import CurateConfig
from herdlm.curate.documents import DOCUMENT_SCHEMA, DROPPED_SCHEMA
from herdlm.curate.funnel import STEPS
from herdlm.curate.pipeline import curate
from tests.curate.crawls import Write, article, page, record, small_crawl, zipped

ENDS = {
    "missing": ("read", "http_status"),
    "image": ("read", "not_html"),
    "en-a-again": ("exact_duplicates", "same_text"),
    "en-a-edited": ("near_duplicates", "similar_text"),
    "ja-a": ("language", "other_language"),
    "short": ("heuristics", "too_few_words"),
    "empty": ("extract", "no_text"),
}


def run(sources: list[object], out: Path, **keys: Any) -> dict[str, Any]:
    out.mkdir()
    return curate([str(source) for source in sources], out, CurateConfig(**keys), quiet=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The small crawl curated by one worker: the folder and the funnel."""
    folder = tmp_path_factory.mktemp("curated")
    (folder / "crawl.warc.gz").write_bytes(zipped(*small_crawl()))
    return folder, run([folder / "crawl.warc.gz"], folder / "one", workers=1, batch_pages=3)


def test_every_page_ends_where_it_should(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    documents = pq.read_table(folder / "one/documents.parquet")
    dropped = pq.read_table(folder / "one/dropped.parquet")
    assert documents.schema.equals(DOCUMENT_SCHEMA)
    assert dropped.schema.equals(DROPPED_SCHEMA)
    kept = documents.to_pylist()
    assert [row["url"].rpartition("/")[2] for row in kept] == ["en-a", "en-b", "de-a"]
    assert [row["language"] for row in kept] == ["en", "en", "de"]
    for row in kept:
        assert row["id"].startswith("crawl.warc.gz#")
        assert row["bytes"] == len(row["text"].encode())
        assert row["words"] == len(row["text"].split())
        assert 0 < row["quality"] <= 1
        assert 0.65 <= row["language_score"] <= 1
    ends = {row["url"].rpartition("/")[2]: row for row in dropped.to_pylist()}
    assert {name: (row["step"], row["reason"]) for name, row in ends.items()} == ENDS
    assert ends["en-a-again"]["duplicate_of"] == ends["en-a-edited"]["duplicate_of"] == kept[0]["id"]
    assert ends["ja-a"]["duplicate_of"] is None
    assert ends["ja-a"]["text"]


def test_the_funnel_adds_up(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, funnel = finished
    assert json.loads((folder / "one/funnel.json").read_text()) == funnel
    assert [step["step"] for step in funnel["steps"]] == list(STEPS)
    before = funnel["input"]["documents"], funnel["input"]["bytes"]
    for step in funnel["steps"]:
        assert (step["documents_in"], step["bytes_in"]) == before
        for unit in ("documents", "bytes"):
            assert step[f"{unit}_dropped"] == sum(reason[unit] for reason in step["dropped"].values())
        assert step["documents_in"] == step["documents_out"] + step["documents_dropped"]
        assert step["bytes_in"] == step["bytes_out"] + step["bytes_dropped"] + step.get("bytes_removed", 0)
        assert step["documents_dropped"] > 0  # the crawl has something for every step
        before = step["documents_out"], step["bytes_out"]
    assert before == (funnel["output"]["documents"], funnel["output"]["bytes"])
    documents = pq.read_table(folder / "one/documents.parquet").to_pylist()
    assert funnel["output"] == {
        "documents": 3,
        "bytes": sum(row["bytes"] for row in documents),
        "words": sum(row["words"] for row in documents),
    }
    assert funnel["languages"]["en"]["documents"] == 2
    assert sum(language["bytes"] for language in funnel["languages"].values()) == funnel["output"]["bytes"]
    assert funnel["input"]["file_bytes"] == (folder / "crawl.warc.gz").stat().st_size


def test_workers_and_batches_change_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    run([folder / "crawl.warc.gz"], folder / "two", workers=2, batch_pages=2, read_ahead_bytes=1)
    names = sorted(path.name for path in (folder / "one").iterdir())
    assert names == ["documents.parquet", "dropped.parquet", "funnel.json"]
    assert names == sorted(path.name for path in (folder / "two").iterdir())
    for name in names:
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes(), name


def test_sources_of_several_formats(write: Write, tmp_path: Path) -> None:
    lines = [{"text": article("en", "j"), "url": "https://x.example/j"}, {"text": article("en", "a"), "url": "again"}]
    crawl = write("a.warc", record("https://x.example/a", page(article("en", "a"))))
    texts = write("b.jsonl.gz", gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    funnel = run([crawl, texts], tmp_path / "out", workers=1, keep_dropped=False, heuristics={"min_words": 40})
    documents = pq.read_table(tmp_path / "out/documents.parquet").to_pylist()
    assert [row["id"] for row in documents] == ["a.warc#0", "b.jsonl.gz#0"]
    assert [row["source"] for row in documents] == ["a.warc", "b.jsonl.gz"]
    assert documents[1]["text"] == article("en", "j")
    assert funnel["input"]["files"] == 2
    assert funnel["input"]["documents"] == 3
    assert not (tmp_path / "out/dropped.parquet").exists()


def test_nothing_left_names_the_step(write: Write, tmp_path: Path) -> None:
    crawl = write("c.warc", record("u", page(article("ja", "a"))) + record("v", page(article("ja", "b"))))
    with pytest.raises(InputError, match=r"no document is left of 2 pages: step language .*other_language 2"):
        run([crawl], tmp_path / "out", workers=1)
    assert not (tmp_path / "out/funnel.json").exists()


def test_damage_met_on_the_way_is_the_users_error(write: Write, tmp_path: Path) -> None:
    """What only reading to the end shows crosses the dataframe engine as the error it was."""
    crawl = write("c.warc.gz", zipped(*small_crawl())[:-40])
    with pytest.raises(InputError, match=r"c\.warc\.gz is cut off") as caught:
        run([crawl], tmp_path / "out", workers=1)
    assert caught.value.exit_code == 2
    assert list((tmp_path / "out").iterdir()) == []


def test_config_errors_name_the_key() -> None:
    for tables, message in (
        ({"languages": ["en", "tlh"]}, r"recipe: languages: language 'tlh' is not supported; choose from af, als, "),
        ({"heuristics": {"min_words": 9, "max_words": 3}}, "min_words 9 is above max_words 3"),
        ({"near_duplicates": {"band": 3}}, r"unknown key near_duplicates\.band\. Did you mean near_duplicates\.bands"),
        ({"heuristics": {"max_short_lines": 1.2}}, r"heuristics\.max_short_lines = 1\.2"),
    ):
        with pytest.raises(InputError, match=message):
            parse(CurateConfig, tables, "recipe")


def test_the_schema_loads_without_the_curation_libraries() -> None:
    code = (
        "import sys, herdlm.curate.config; "
        "print([m for m in ('daft', 'pyarrow', 'fastwarc', 'resiliparse', 'py3langid') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
