"""Graders and domain classifiers from labels to published folders, and all of grading on the starter crawl."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from herdlm.base.artefact import hash_file, read_manifest
from herdlm.base.errors import DamagedError, InputError
from herdlm.cli.app import app
from herdlm.curate.classify.grader import CountableGrader, Grader
from herdlm.curate.config import ClassifierConfig, DomainsConfig, GradeConfig, QualityConfig
from herdlm.curate.grade.labels import read_labels
from herdlm.curate.grade.publish import train_model
from herdlm.curate.steps.domains.classifier import open_domains
from herdlm.curate.steps.extract import extract
from herdlm.curate.steps.language import identify
from herdlm.curate.steps.quality.countable import quality
from herdlm.curate.steps.quality.cutoffs import ScoreCounts, check_quality, cutoffs
from tests.curate.crawls import WORDS

SAMPLE = Path(__file__).parents[3] / "sample" / "starter.warc.gz"
SMALL = GradeConfig(classifier=ClassifierConfig(bits=14))


def sentence(language: str, good: bool, draw: Random) -> str:
    """Words of a language, those of the first half likelier where good."""
    words = WORDS[language].split()
    half = len(words) // 2
    return " ".join(
        draw.choices(words[:half] if draw.random() < (0.65 if good else 0.35) else words[half:], k=1)[0]
        for _ in range(30)
    )


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 1,500 English and 900 German texts and 60 French, and scores of them by id."""
    folder = tmp_path_factory.mktemp("labelled")
    draw = Random(0)
    documents, labels = [], []
    for language, count in {"en": 1500, "de": 900, "fr": 60}.items():
        for i in range(count):
            good = draw.random() < 0.5
            id_ = f"{language}-{i}"
            documents.append({"id": id_, "text": sentence(language, good, draw), "language": language})
            labels.append({"id": id_, "score": draw.choice([3, 4, 5] if good else [0, 1, 2])})
    pq.write_table(pa.Table.from_pylist(documents), folder / "documents.parquet")
    labels += [{"id": "elsewhere", "score": 1}, {"id": "en-0", "fault": "unparsable"}]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    return folder


@pytest.fixture(scope="module")
def trained(labelled: Path) -> tuple[Path, dict[str, Any]]:
    out = labelled / "grader"
    return out, train_model("grader", labelled / "labels.jsonl", labelled, out, SMALL)


def test_the_report_tells_of_held_out_labels_by_language(trained: tuple[Path, dict[str, Any]]) -> None:
    out, told = trained
    assert json.loads((out / "report.json").read_text()) == told
    labels = told["labels"]
    assert (labels["rows_without_answer"], labels["rows_of_unknown_documents"]) == (1, 1)
    assert labels["training"] + labels["calibration"] + labels["held_out"] == 2460
    assert labels["held_out"] == pytest.approx(492, abs=70)
    assert told["held_out"]["auc"] > 0.95 and told["held_out"]["precision"] > 0.85
    assert told["held_out"]["calibration_error"] < 0.08
    assert {name: row["calibration"] for name, row in told["by_language"].items()} == {
        "de": "own",
        "en": "own",
        "fr": "all languages'",
    }
    assert told["by_language"]["fr"]["why"] == "too_few_texts"
    assert sum(row["texts"] for row in told["by_language"].values()) == labels["held_out"]
    text = (out / "report.txt").read_text()
    assert "calibration: all languages' (too few texts)" in text and "calibration: own" in text


def test_a_published_grader_names_its_labels_scores_as_reported_and_is_made_alike_again(
    trained: tuple[Path, dict[str, Any]], labelled: Path
) -> None:
    out, _ = trained
    manifest = read_manifest(out)
    assert manifest is not None and manifest.inputs["labels"].content == hash_file(labelled / "labels.jsonl")
    draw = Random(9)
    texts = [sentence("en", good, draw) for good in [True] * 40 + [False] * 40]
    scores = Grader.load(out).score(texts, ["en"] * 80)
    assert np.mean(scores[:40] > 0.5) > 0.85 and np.mean(scores[40:] < 0.5) > 0.85
    assert np.array_equal(scores, np.round(scores, 4)) and scores.min() >= 0 and scores.max() <= 1
    train_model("grader", labelled / "labels.jsonl", labelled, labelled / "again", SMALL)
    again = read_manifest(labelled / "again")
    assert again is not None and again.content == manifest.content


def test_a_grader_that_is_missing_changed_or_of_another_kind_stops_the_run(
    trained: tuple[Path, dict[str, Any]], labelled: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="there is no grader in"):
        Grader.load(tmp_path)
    rows = [
        {"text": sentence("en", k == "a", Random(i)), "label": k, "language": "en"} for i in range(40) for k in "ab"
    ]
    (tmp_path / "kinds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_model("domain classifier", tmp_path / "kinds.jsonl", None, tmp_path / "kinds", SMALL)
    with pytest.raises(InputError, match="holds domain classifier, not a grader"):
        Grader.load(tmp_path / "kinds")
    assert set(open_domains(DomainsConfig(model=str(tmp_path / "kinds"))).label(["x", "y"])) <= {"a", "b"}
    train_model("grader", labelled / "labels.jsonl", labelled, tmp_path / "grader", SMALL)
    calibration = tmp_path / "grader" / "calibration.json"
    calibration.write_text(calibration.read_text().replace('"slope": ', '"slope": 1'))
    with pytest.raises(DamagedError, match="calibration.json is damaged"):
        Grader.load(tmp_path / "grader")


def test_countable_properties_are_a_grader_without_a_model() -> None:
    texts = ["A sentence that is long enough, and ends as it should.", ""]
    assert CountableGrader().score(texts, ["en", "en"]).tolist() == [quality(texts[0], "en"), 0.0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"score": 1}, "neither id nor text"),
        ({"id": "a"}, "either a label or a score"),
        ({"id": "a", "label": "x", "score": 1}, "either a label or a score"),
        ({"id": "a", "label": 3}, "label = 3 is no string"),
        ({"id": "a", "score": "3"}, "score = '3' is no number"),
        ({"id": "a", "score": True}, "is no number"),
        ({"id": "a", "score": 1}, "no corpus is given"),
        ({"text": "a", "language": "en", "score": 1}, "names in some rows and scores in others"),
    ],
)
def test_labels_that_say_too_little_are_refused_by_row(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps({"text": "fine", "language": "en", "label": "x"}) + "\n" + json.dumps(row) + "\n")
    if "no corpus" in message:
        path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=message):
        read_labels(path)


def test_too_few_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"t {i}", "language": "en", "score": i % 2 * 5}) + "\n" for i in range(2))
    )
    with pytest.raises(InputError):
        train_model("grader", path, None, tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The texts of a third of the starter crawl's pages, with three examples of a benchmark planted in one of them."""
    rows = []
    with SAMPLE.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response):
            url = record.headers["WARC-Target-URI"]
            if hashlib.sha256(url.encode()).digest()[0] % 3:
                continue
            text, reason = extract(record.reader.read(), "utf-8", True)
            if reason is None and len(text) > 300:
                rows.append({"id": url, "text": text, "language": identify(text)[0]})
    folder = tmp_path_factory.mktemp("crawl")
    rows[5]["text"] += "\n\n" + "\n".join(EXAMPLES[:3])
    pq.write_table(pa.Table.from_pylist(rows), folder / "documents.parquet")
    (folder / "benchmark.jsonl").write_text("".join(json.dumps({"question": e}) + "\n" for e in EXAMPLES))
    return folder


EXAMPLES = [
    f"A {who} has {n} {what} and gives every {k}th of them to the neighbour, who sells half. How many {what} are sold?"
    for n, (who, what, k) in enumerate(
        [
            ("farmer", "hens", 4),
            ("miller", "sacks", 3),
            ("smith", "shoes", 6),
            ("tailor", "coats", 5),
            ("baker", "rolls", 7),
        ],
        84,
    )
]


def test_the_starter_crawl_is_labelled_graded_cut_and_searched_for_benchmarks(
    crawl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = pq.read_table(crawl / "documents.parquet").to_pylist()
    # The label: whether a page is of a reference manual, told by its address, as a stand-in for a person's judgement.
    manual = ("apache2-doc", "python3-11-doc", "sqlite3-doc")
    labels = [
        {"id": d["id"], "label": "good" if d["id"].split("/")[2].startswith(manual) else "bad"} for d in documents
    ]
    (crawl / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    arguments = ["--labels", str(crawl / "labels.jsonl"), "--corpus", str(crawl)]
    app(["grade", "train", *arguments, "--out", str(crawl / "grader"), "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert told["held_out"]["auc"] > 0.95 > told["countable_properties"]["auc"]

    grader = Grader.load(crawl / "grader")
    texts, languages = [d["text"] for d in documents], [d["language"] for d in documents]
    scores = grader.score(texts, languages)
    counts = ScoreCounts()
    counts.add(scores, languages)
    cuts = cutoffs(counts, QualityConfig(keep_share=0.5))
    kept = [check_quality(s, language, cuts) is None for s, language in zip(scores, languages, strict=True)]
    assert 0.5 <= np.mean(kept) < 0.75
    is_good = np.array([row["label"] == "good" for row in labels])
    assert is_good[np.array(kept)].mean() > is_good.mean()

    found = open_domains(DomainsConfig()).label(texts)
    assert found.count("general") > 0.9 * len(found) and found.count("code") >= 1

    app(
        [
            "contamination",
            str(crawl),
            "--benchmark",
            f"made={crawl / 'benchmark.jsonl'}",
            "--field",
            "question",
            "--json",
        ],
        standalone_mode=False,
    )
    leaks = json.loads(capsys.readouterr().out)["benchmarks"]["made"]
    assert (leaks["examples"], leaks["examples_contaminated"], leaks["documents_with_an_example"]) == (5, 3, 1)
    assert [row["documents"] for row in leaks["contaminated"]] == [[documents[5]["id"]]] * 3
