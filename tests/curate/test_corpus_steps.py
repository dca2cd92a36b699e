"""The steps that know the whole corpus, end to end: versions, lists, lines, hosts, cuts, caps, benchmarks, an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from herdlm.base.errors import InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.duplicates.add import add_to_index
from herdlm.curate.pipeline import curate

WORDS = [
    "river",
    "mountain",
    "letter",
    "garden",
    "window",
    "market",
    "teacher",
    "winter",
    "summer",
    "morning",
    "engine",
    "copper",
    "village",
    "harbour",
    "music",
    "painter",
    "silver",
    "journey",
    "captain",
    "forest",
    "kitchen",
    "bridge",
    "dinner",
    "doctor",
    "weather",
    "island",
    "station",
    "factory",
    "library",
    "story",
]
LINKS = ["the", "of", "and", "to", "in", "that", "with", "was", "for", "on"]
NOTICE = "Subscribe to our weekly letter and never miss the news of the valley again."


def article(seed: int, sentences: int = 14) -> str:
    """English prose that no other seed repeats."""
    rng = np.random.default_rng(seed)

    def sentence() -> str:
        names, links = rng.choice(WORDS, 9), rng.choice(LINKS, 9)
        return " ".join(f"{link} {name}" for link, name in zip(links, names, strict=True)).capitalize() + "."

    return "\n".join(sentence() for _ in range(sentences))


def rows() -> list[dict[str, str]]:
    return [
        {"url": f"https://site{n % 3}.example/page/{n}", "date": f"2024-01-{n + 1:02}", "text": article(n)}
        for n in range(12)
    ]


def run(tmp_path: Path, documents: list[dict[str, str]], name: str = "out", **keys: Any) -> Path:
    source = tmp_path / f"{name}.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in documents), encoding="utf-8")
    out = tmp_path / name
    out.mkdir()
    curate([str(source)], out, CurateConfig(workers=1, **keys), quiet=True)
    return out


def kept(out: Path) -> list[str]:
    return pq.read_table(out / "documents")["url"].to_pylist()


def dropped(out: Path) -> dict[str, tuple[str, str]]:
    table = pq.read_table(out / "dropped").to_pylist()
    return {row["url"]: (row["step"], row["reason"]) for row in table}


def test_the_newest_version_of_a_page_is_kept(tmp_path: Path) -> None:
    documents = rows()
    documents[3] = documents[3] | {"url": "HTTP://SITE1.example:80/page/4?utm_source=x", "date": "2025-06-01"}
    out = run(tmp_path, documents)
    assert dropped(out) == {"https://site1.example/page/4": ("older_versions", "older_version")}


def test_blocked_addresses_are_dropped_and_a_missing_list_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("site2.example\n")
    out = run(tmp_path, rows(), url={"blocked_domains": (str(tmp_path / "hosts.txt"),)})
    assert set(dropped(out).values()) == {("url", "blocked_domain")}
    assert len(dropped(out)) == 4
    with pytest.raises(InputError, match=r"gone\.txt"):
        run(tmp_path, rows(), "other", url={"blocked_domains": (str(tmp_path / "gone.txt"),)})


def test_a_line_that_many_documents_have_is_taken_out_of_all(tmp_path: Path) -> None:
    documents = [row | {"text": f"{row['text']}\n{NOTICE}"} for row in rows()]
    out = run(tmp_path, documents)
    texts = pq.read_table(out / "documents")["text"].to_pylist()
    assert len(texts) == 12
    assert not any(NOTICE in text for text in texts)
    assert texts[0] == article(0)
    some = [row | {"text": f"{row['text']}\n{NOTICE}"} if n < 6 else row for n, row in enumerate(rows())]
    texts = pq.read_table(run(tmp_path, some, "six") / "documents")["text"].to_pylist()
    assert sum(NOTICE in text for text in texts) == 6


def test_a_line_that_repeats_itself_is_taken_out_of_its_page(tmp_path: Path) -> None:
    documents = rows()
    log = " ".join(f"{n} error while reading the block from the disk" for n in range(6))
    long = article(3, 60)
    documents[3] = documents[3] | {"text": f"{long}\n{log}\n{article(99)}"}
    out = run(tmp_path, documents)
    texts = dict(zip(kept(out), pq.read_table(out / "documents")["text"].to_pylist(), strict=True))
    assert texts[documents[3]["url"]] == f"{long}\n{article(99)}"
    steps = {step["step"]: step for step in json.loads((out / "funnel.json").read_text())["steps"]}
    assert steps["repetitive_lines"]["bytes_removed"] == len(log) + 1
    assert steps["repetitive_lines"]["documents_dropped"] == 0


def test_lines_are_counted_bucket_by_bucket(tmp_path: Path) -> None:
    documents = [row | {"text": f"{row['text']}\n{NOTICE}"} for row in rows()]
    keys = {"repeated_lines": {"bucket_documents": 3}, "shard_megabytes": 0.003}
    out = run(tmp_path, documents, **keys)
    texts = pq.read_table(out / "documents")["text"].to_pylist()
    assert sum(NOTICE in text for text in texts) == 12  # no bucket has more than six


def test_the_worst_of_a_language_can_be_cut_and_domains_capped(tmp_path: Path) -> None:
    everything = pq.read_table(run(tmp_path, rows()) / "documents")
    out = run(tmp_path, rows(), "half", quality={"keep_share": 0.5})
    scores = sorted(everything["quality"].to_pylist(), reverse=True)
    assert min(pq.read_table(out / "documents")["quality"].to_pylist()) >= scores[5]
    assert ("quality", "low_quality") in dropped(out).values()
    assert set(everything["domain"].to_pylist()) <= {"general", "mathematics", "code"}


def test_documents_with_examples_of_a_benchmark_are_dropped_and_reported(tmp_path: Path) -> None:
    benchmark = tmp_path / "benchmark.jsonl"
    question = article(500, 3).replace("\n", " ")
    benchmark.write_text("".join(json.dumps({"question": q}) + "\n" for q in (question, article(501, 3))))
    documents = rows()
    documents[5] = documents[5] | {"text": f"{documents[5]['text']}\n{question}"}
    keys: dict[str, Any] = {"path": str(benchmark), "fields": ("question",)}
    out = run(tmp_path, documents, contamination={"benchmarks": {"quiz": keys}})
    assert dropped(out) == {documents[5]["url"]: ("contamination", "contaminated")}
    report = json.loads((out / "contamination.json").read_text())["benchmarks"]["quiz"]
    assert len(report["contaminated"]) == 1
    flagged = run(tmp_path, documents, "flag", contamination={"benchmarks": {"quiz": keys | {"action": "flag"}}})
    table = pq.read_table(flagged / "documents").to_pylist()
    assert [row["url"] for row in table if row["contaminated"]] == [documents[5]["url"]]


def test_a_crawl_is_deduplicated_against_an_index_of_an_earlier_one(tmp_path: Path) -> None:
    first = rows()
    config = CurateConfig()
    told = add_to_index(run(tmp_path, first), tmp_path / "index", "first", config.near_duplicates)
    assert told["documents"] == 12
    second = [{"url": f"https://new.example/{n}", "date": "2024-05-01", "text": article(100 + n)} for n in range(4)]
    second[1]["text"] = article(7)
    second[2]["text"] = article(8).replace("river", "stream", 1)
    out = run(tmp_path, second, "second", index=str(tmp_path / "index"))
    assert dropped(out) == {
        "https://new.example/1": ("exact_duplicates", "same_text"),
        "https://new.example/2": ("near_duplicates", "similar_text"),
    }
    repeats = {row["url"]: row["duplicate_of"] for row in pq.read_table(out / "dropped").to_pylist()}
    ids = {row["url"]: row["id"] for row in pq.read_table(tmp_path / "out/documents").to_pylist()}
    assert repeats["https://new.example/1"] == ids[first[7]["url"]]
    with pytest.raises(InputError, match="already has the crawl 'first'"):
        add_to_index(tmp_path / "second", tmp_path / "index", "first", config.near_duplicates)
    with pytest.raises(InputError, match=r"bands = 14, this run has 20"):
        run(tmp_path, second, "third", index=str(tmp_path / "index"), near_duplicates={"bands": 20})


def test_personal_data_is_masked_and_hosts_full_of_it_are_dropped(tmp_path: Path) -> None:
    documents = rows()
    documents[0]["text"] += "\nWrite to anna.schmidt84@gmail.com about the garden and the harbour of the island."
    out = run(tmp_path, documents)
    text = next(row["text"] for row in pq.read_table(out / "documents").to_pylist() if row["url"].endswith("page/0"))
    assert "anna.schmidt84" not in text
    strict = run(tmp_path, documents, "strict", hosts={"max_pii_per_1000_words": 0.01})
    assert {url for url, end in dropped(strict).items() if end == ("hosts", "host_with_personal_data")} == {
        row["url"] for row in documents if "site0" in row["url"]
    }
    (worst,) = json.loads((strict / "hosts.json").read_text())
    assert (worst["host"], worst["pages"], worst["dropped"]) == ("site0.example", 4, "host_with_personal_data")
    assert worst["of_threshold"] == pytest.approx(worst["pii_per_1000_words"] / 0.01, abs=0.02)
    (same,) = json.loads((out / "hosts.json").read_text())
    assert same["dropped"] is None and same["of_threshold"] < 1
