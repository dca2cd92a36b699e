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
from herdlm.curate.pipeline import curate
from herdlm.curate.steps.contents import funnel_steps
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

SEEN = {"read", "extract", "language", "heuristics", "exact_duplicates", "near_duplicates"}


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
    documents = pq.read_table(folder / "one/documents")
    dropped = pq.read_table(folder / "one/dropped")
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
    assert [step["step"] for step in funnel["steps"]] == funnel_steps(CurateConfig())
    before = funnel["input"]["documents"], funnel["input"]["bytes"]
    for step in funnel["steps"]:
        assert (step["documents_in"], step["bytes_in"]) == before
        for unit in ("documents", "bytes"):
            assert step[f"{unit}_dropped"] == sum(reason[unit] for reason in step["dropped"].values())
        assert step["documents_in"] == step["documents_out"] + step["documents_dropped"]
        assert step["bytes_in"] == step["bytes_out"] + step["bytes_dropped"] + step["bytes_removed"]
        if step["step"] in SEEN:  # the crawl has something for each of these
            assert step["documents_dropped"] > 0
        languages = step["languages"].values()
        assert sum(of["documents_in"] for of in languages) == step["documents_in"]
        assert sum(of["documents_out"] for of in languages) == step["documents_out"]
        assert step["domains"] == {
            "x.example": {"documents_in": step["documents_in"], "documents_out": step["documents_out"]}
        }
        before = step["documents_out"], step["bytes_out"]
    assert before == (funnel["output"]["documents"], funnel["output"]["bytes"])
    documents = pq.read_table(folder / "one/documents").to_pylist()
    assert funnel["output"] == {
        "documents": 3,
        "bytes": sum(row["bytes"] for row in documents),
        "words": (words := sum(row["words"] for row in documents)),
        "tokens_estimated": pytest.approx(words * 1.3, abs=1),
    }
    assert funnel["languages"]["en"]["documents"] == 2
    assert sum(language["bytes"] for language in funnel["languages"].values()) == funnel["output"]["bytes"]
    assert funnel["input"]["file_bytes"] == (folder / "crawl.warc.gz").stat().st_size


def content(folder: Path) -> dict[str, bytes]:
    """The files of a corpus, without the one that holds times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timing.json"
    }


def test_workers_and_batches_change_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    crawl = folder / "crawl.warc.gz"
    run([crawl], folder / "two", workers=2, batch_pages=2, shuffle_megabytes=1e-5)
    assert list(content(folder / "one")) == [
        "documents/part-00000.parquet",
        "dropped/part-00000.parquet",
        "funnel.json",
        "hosts.json",
        "samples.json",
    ]
    assert content(folder / "one") == content(folder / "two")
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_shards_change_how_rows_are_divided_into_files_only(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, funnel = finished
    shards = {}
    for workers in (1, 2):
        out = folder / f"shards-{workers}"
        assert run([folder / "crawl.warc.gz"], out, workers=workers, shard_megabytes=1e-3) == funnel
        shards[workers] = content(out)
    assert shards[1] == shards[2]
    assert sum(name.startswith("documents") for name in shards[1]) > 3
    for kind in ("documents", "dropped"):
        assert pq.read_table(folder / "shards-1" / kind).equals(pq.read_table(folder / "one" / kind))
    assert shards[1]["samples.json"] == (folder / "one/samples.json").read_bytes()


def test_dropped_documents_are_kept_as_the_recipe_says(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, funnel = finished
    crawl = folder / "crawl.warc.gz"
    assert run([crawl], folder / "none", keep_dropped="none", workers=1) == funnel
    assert not (folder / "none/dropped").exists()
    assert run([crawl], folder / "sample", keep_dropped="sample", dropped_sample=1, workers=1) == funnel
    everything = pq.read_table(folder / "one/dropped").to_pylist()
    sample = pq.read_table(folder / "sample/dropped").to_pylist()
    assert [row for row in everything if row in sample] == sample
    assert {(row["step"], row["reason"]) for row in sample} == {(row["step"], row["reason"]) for row in everything}


def test_sources_of_several_formats(write: Write, tmp_path: Path) -> None:
    lines = [{"text": article("en", "j"), "url": "https://x.example/j"}, {"text": article("en", "a"), "url": "again"}]
    crawl = write("a.warc", record("https://x.example/a", page(article("en", "a"))))
    texts = write("b.jsonl.gz", gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    funnel = run([crawl, texts], tmp_path / "out", workers=1, keep_dropped="none", heuristics={"min_words": 40})
    documents = pq.read_table(tmp_path / "out/documents").to_pylist()
    assert [row["id"] for row in documents] == ["a.warc#0", "b.jsonl.gz#0"]
    assert [row["source"] for row in documents] == ["a.warc", "b.jsonl.gz"]
    assert documents[1]["text"] == article("en", "j")
    assert funnel["input"]["files"] == 2
    assert funnel["input"]["documents"] == 3


def test_nothing_left_names_the_step(write: Write, tmp_path: Path) -> None:
    crawl = write("c.warc", record("u", page(article("ja", "a"))) + record("v", page(article("ja", "b"))))
    with pytest.raises(InputError, match=r"no document is left of 2 pages: step language .*other_language 2"):
        run([crawl], tmp_path / "out", workers=1)
    assert not (tmp_path / "out/funnel.json").exists()


def test_a_file_cut_off_is_told_by_the_funnel(write: Write, tmp_path: Path) -> None:
    crawl = write("c.warc.gz", zipped(*small_crawl())[:-40])
    funnel = run([crawl], tmp_path / "out", workers=1)
    assert funnel["steps"][0]["dropped"]["cut_off"]["documents"] == 1
    assert funnel["output"]["documents"] == 3


def test_a_source_without_pages_stops_the_run(write: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"d\.warc holds no pages") as caught:
        run([write("c.warc", b"".join(small_crawl())), write("d.warc", small_crawl()[0])], tmp_path / "out")
    assert caught.value.exit_code == 2
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(InputError, match=r"is not a WARC file"):  # what a worker finds is the user's error, too
        run([write("e.warc", b"no such thing")], tmp_path / "out2")


def test_config_errors_name_the_key() -> None:
    for tables, message in (
        (
            {"language": {"keep": ["en", "tlh"]}},
            r"recipe: language.keep: language 'tlh' is not supported; choose from af, als, ",
        ),
        ({"heuristics": {"min_words": 9, "max_words": 3}}, "min_words 9 is above max_words 3"),
        ({"near_duplicates": {"band": 3}}, r"unknown key near_duplicates\.band\. Did you mean near_duplicates\.bands"),
        ({"heuristics": {"max_short_lines": 1.2}}, r"heuristics\.max_short_lines = 1\.2"),
    ):
        with pytest.raises(InputError, match=message):
            parse(CurateConfig, tables, "recipe")


def test_the_schema_loads_without_the_curation_libraries() -> None:
    code = (
        "import sys, herdlm.curate.config; "
        "heavy = ('pyarrow', 'fastwarc', 'resiliparse', 'selectolax', 'fasttext_pybind'); "
        "print([module for module in heavy if module in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("tables", "old", "new"),
    [
        ({"languages": ["en"]}, "languages", "curate.language.keep"),
        ({"min_language_score": 0.4}, "min_language_score", "curate.language.min_score"),
        ({"language_thresholds": {"de": 0.4}}, "language_thresholds", "curate.language.thresholds"),
        (
            {"heuristics": {"max_line_ngram_chars": 0.4}},
            "heuristics.max_line_ngram_chars",
            "curate.repetitive_lines.max_",
        ),
        (
            {"heuristics": {"repetitive_line_words": 9}},
            "heuristics.repetitive_line_words",
            "curate.repetitive_lines.min_",
        ),
    ],
)
def test_renamed_keys_are_refused_with_the_new_name(tables: dict[str, Any], old: str, new: str) -> None:
    with pytest.raises(InputError, match=f"recipe: key {old} was renamed to {new}"):
        parse(CurateConfig, tables, "recipe")
