"""Graders and domain classifiers from labels to published folders, and all of grading on the starter crawl."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from herdlm.base.artifact import hash_file, read_manifest
from herdlm.base.errors import DamagedError, InputError
from herdlm.curate.classify.config import ClassifierConfig
from herdlm.curate.classify.grader import Grader
from herdlm.curate.grade.config import GradeConfig
from herdlm.curate.grade.publish import train_model
from herdlm.curate.steps.domains.classifier import DomainsConfig, open_domains
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
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 1,500 English and 900 German texts and 60 French, and scores of them by id."""
    folder = tmp_path_factory.mktemp("labeled")
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
def trained(labeled: Path) -> tuple[Path, dict[str, Any]]:
    out = labeled / "grader"
    return out, train_model("grader", labeled / "labels.jsonl", labeled, out, SMALL)


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
    trained: tuple[Path, dict[str, Any]], labeled: Path
) -> None:
    out, _ = trained
    manifest = read_manifest(out)
    assert manifest is not None and manifest.inputs["labels"].content == hash_file(labeled / "labels.jsonl")
    draw = Random(9)
    texts = [sentence("en", good, draw) for good in [True] * 40 + [False] * 40]
    scores = Grader.load(out).score(texts, ["en"] * 80)
    assert np.mean(scores[:40] > 0.5) > 0.85 and np.mean(scores[40:] < 0.5) > 0.85
    assert np.array_equal(scores, np.round(scores, 4)) and scores.min() >= 0 and scores.max() <= 1
    train_model("grader", labeled / "labels.jsonl", labeled, labeled / "again", SMALL)
    again = read_manifest(labeled / "again")
    assert again is not None and again.content == manifest.content


def test_a_grader_that_is_missing_changed_or_of_another_kind_stops_the_run(
    trained: tuple[Path, dict[str, Any]], labeled: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="there is no grader in"):
        Grader.load(tmp_path)
    rows = [
        {"text": sentence("en", k == "a", Random(i)), "label": k, "language": "en"} for i in range(40) for k in "ab"
    ]
    (tmp_path / "kinds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_model("domain classifier", tmp_path / "kinds.jsonl", None, tmp_path / "kinds", SMALL)
    with pytest.raises(InputError, match="of kind domain classifier, not a grader"):
        Grader.load(tmp_path / "kinds")
    assert set(open_domains(DomainsConfig(model=str(tmp_path / "kinds"))).label(["x", "y"])) <= {"a", "b"}
    train_model("grader", labeled / "labels.jsonl", labeled, tmp_path / "grader", SMALL)
    calibration = tmp_path / "grader" / "calibration.json"
    calibration.write_text(calibration.read_text().replace('"slope": ', '"slope": 1'))
    with pytest.raises(DamagedError, match="calibration.json is damaged"):
        Grader.load(tmp_path / "grader")
