"""Trains graders and domain classifiers as artifacts, with a manifest that names the hash of their labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from herdlm.base.artifact import InputEntry, hash_file, hash_json, read_manifest, require_file
from herdlm.base.standalone import standalone
from herdlm.curate.classify import grader
from herdlm.curate.grade import train
from herdlm.curate.grade.config import GradeConfig
from herdlm.curate.rows import corpus_files
from herdlm.curate.steps.domains import classifier as domains

READABLE = train.READABLE
TRAINERS = {grader.KIND: train.train_grader, domains.KIND: train.train_domains}


def train_model(
    kind: str, labels: Path, corpus: Path | None, out: Path, config: GradeConfig, *, seed: int = 0
) -> dict[str, Any]:
    """Train a model of ``kind`` (a key of ``TRAINERS``) into the new folder ``out``, and return its report.

    Raises:
        InputError: Labels or corpus are missing or unusable, or ``out`` exists.
    """
    require_file(labels, "the file of labels")
    inputs = {"labels": InputEntry(path=str(labels), content=hash_file(labels))}
    if corpus is not None:
        inputs["corpus"] = InputEntry(path=str(corpus), content=_content(corpus))
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = config.model_dump(mode="json")
    with standalone(out, kind=kind, name="grade", settings=settings, inputs=inputs, seed=seed) as (made, _, counts):
        report = TRAINERS[kind](labels, corpus, made, config, seed=seed)
        counts.update(report["labels"])
    return report


def _content(corpus: Path) -> str:
    """Return the hash of a corpus: that of its manifest, or of its files."""
    manifest = read_manifest(corpus) if corpus.is_dir() else None
    return manifest.content if manifest else hash_json([hash_file(file) for file in corpus_files(corpus)])
