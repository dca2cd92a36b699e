"""Trains graders and domain classifiers from labels, and evaluates each on labels that it was not trained on.

Labels are split into training, calibration and held-out sets by a hash of the document's id, so a document's set does
not depend on the other labels.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herdlm.base.artifact import write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed
from herdlm.curate.classify.calibrate import Calibration, calibrate
from herdlm.curate.classify.grader import GOOD, NOT_GOOD, Grader, margins
from herdlm.curate.classify.linear import train
from herdlm.curate.grade.config import GradeConfig
from herdlm.curate.grade.labels import Labeled, Labels, read_labels
from herdlm.curate.grade.measures import measure, measure_classes, reliability
from herdlm.curate.grade.report import domain_lines, grader_lines
from herdlm.curate.steps.quality.countable import quality

REPORT, READABLE = "report.json", "report.txt"


@dataclass(frozen=True, slots=True)
class LabelSplit:
    """Labeled texts, split into sets."""

    training: list[Labeled]
    calibration: list[Labeled]
    held_out: list[Labeled]


def train_grader(labels: Path, corpus: Path | None, out: Path, config: GradeConfig, *, seed: int = 0) -> dict[str, Any]:
    """Train a grader on the labels of a file, write it and its report to the folder ``out``, and return the report.

    Raises:
        InputError: Labels are missing, unusable, too few, or all of one kind.
    """
    read = read_labels(labels, corpus)
    split = split_labels(read.texts, config.calibration_share, config.held_out_share, seed)
    kinds = [GOOD if good else NOT_GOOD for good in _are_good(split.training, config)]
    classifier = train(_texts(split.training), kinds, config.classifier, seed=seed)
    calibration = calibrate(
        margins(classifier, _texts(split.calibration)),
        _are_good(split.calibration, config),
        _languages(split.calibration),
        config.min_calibration_texts,
    )
    grader = Grader(classifier, calibration)
    grader.save(out)
    report = {"labels": _counts(read, split)} | _examine(grader, split.held_out, config)
    _write(out, report, grader_lines(report))
    return report


def train_domains(
    labels: Path, corpus: Path | None, out: Path, config: GradeConfig, *, seed: int = 0
) -> dict[str, Any]:
    """Train a classifier of the names in a file of labels, as :func:`train_grader` does, but without calibration.

    Raises:
        InputError: Labels are missing, are scores, are too few, or are all the same.
    """
    read = read_labels(labels, corpus)
    if isinstance(read.texts[0].label, float):
        raise InputError(f"{labels} holds scores, not the names of domains", "Give rows with a label")
    split = split_labels(read.texts, 0.0, config.held_out_share, seed)
    classifier = train(_texts(split.training), _names(split.training), config.classifier, seed=seed)
    classifier.save(out)
    found = [classifier.labels[i] for i in classifier.logits(_texts(split.held_out)).argmax(axis=1).tolist()]
    report = {"labels": _counts(read, split), "held_out": measure_classes(found, _names(split.held_out))}
    _write(out, report, domain_lines(report))
    return report


def split_labels(texts: Sequence[Labeled], calibration_share: float, held_out_share: float, seed: int) -> LabelSplit:
    """Split labeled texts into sets by their keys.

    Raises:
        InputError: There are so few that a set with a share is empty.
    """
    split = LabelSplit([], [], [])
    for each in texts:
        at = derive_seed(seed, "grade", "deal", each.key) / 2**63
        if at < held_out_share:
            split.held_out.append(each)
        elif at < held_out_share + calibration_share:
            split.calibration.append(each)
        else:
            split.training.append(each)
    if not split.training or not split.held_out or (calibration_share and not split.calibration):
        raise InputError(f"{len(texts)} labels are too few to train and evaluate on", "Label more documents")
    return split


def _examine(grader: Grader, held_out: Sequence[Labeled], config: GradeConfig) -> dict[str, Any]:
    texts, languages, is_good = _texts(held_out), _languages(held_out), _are_good(held_out, config)
    scores = grader.score(texts, languages)
    names = np.array(languages)
    by_language = {}
    for language in sorted(set(languages)):
        rows = names == language
        by_language[language] = measure(scores[rows], is_good[rows], config.report_at) | _origin(
            grader.calibration, language
        )
    return {
        "kept_from_score": config.report_at,
        "held_out": measure(scores, is_good, config.report_at),
        "by_language": by_language,
        "reliability": reliability(scores, is_good),
        "countable_properties": measure(_countable_scores(texts, languages), is_good, config.report_at),
        "calibration": grader.calibration.model_dump(mode="json"),
    }


def _countable_scores(texts: Sequence[str], languages: Sequence[str]) -> NDArray[np.float64]:
    """Return the scores (N,) by countable properties, which a curation without a grader uses."""
    return np.array([quality(text, language) for text, language in zip(texts, languages, strict=True)], np.float64)


def _origin(calibration: Calibration, language: str) -> dict[str, str | None]:
    own = language in calibration.by_language
    return {"calibration": "own" if own else "all languages'", "why": calibration.why_not.get(language)}


def _counts(read: Labels, split: LabelSplit) -> dict[str, Any]:
    return {
        "rows_without_answer": read.unanswered,
        "rows_of_unknown_documents": read.unmatched,
        "training": len(split.training),
        "calibration": len(split.calibration),
        "held_out": len(split.held_out),
        "by_language": dict(sorted(Counter(_languages(read.texts)).items())),
        "by_label": {str(label): count for label, count in sorted(Counter(each.label for each in read.texts).items())},
    }


def _are_good(texts: Sequence[Labeled], config: GradeConfig) -> NDArray[np.bool_]:
    good = set(config.good_labels)
    judged = (t.label >= config.good if isinstance(t.label, float) else t.label in good for t in texts)
    return np.fromiter(judged, bool, len(texts))


def _texts(labeled: Sequence[Labeled]) -> list[str]:
    return [each.text for each in labeled]


def _languages(labeled: Sequence[Labeled]) -> list[str]:
    return [each.language for each in labeled]


def _names(labeled: Sequence[Labeled]) -> list[str]:
    return [str(each.label) for each in labeled]


def _write(out: Path, report: dict[str, Any], lines: Sequence[str]) -> None:
    write_text_durably(out / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    write_text_durably(out / READABLE, "\n".join(lines) + "\n")
