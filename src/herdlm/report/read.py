"""Reads what stages wrote. A missing file or count is an error, never a gap in the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from herdlm.base.artifact import Manifest, read_manifest
from herdlm.base.errors import DamagedError

Schema = TypeVar("Schema", bound=BaseModel)


class Record(BaseModel):
    """Part of a file or of a manifest's counts. Keys that the report uses are required; others are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class DroppedRecord(Record):
    documents: int
    bytes: int


class StepRecord(Record):
    step: str
    documents_in: int
    documents_dropped: int
    documents_out: int
    bytes_out: int
    dropped: dict[str, DroppedRecord]


class ReadRecord(Record):
    files: int
    file_bytes: int
    documents: int


class KeptRecord(Record):
    documents: int
    bytes: int
    words: int


class FunnelRecord(Record):
    """funnel.json of curation."""

    input: ReadRecord
    steps: list[StepRecord]
    output: KeptRecord
    languages: dict[str, KeptRecord]


class TokenizerCounts(Record):
    vocab_size: int


class TokensRecord(Record):
    documents: int
    tokens: int
    target_tokens: int
    bytes_per_token: float


class TokensCounts(RootModel[dict[str, TokensRecord]]):
    """Counts of the tokens stage, by set."""


class PretrainingRecord(Record):
    """training.json of pre-training."""

    parameters: int
    body_parameters: int
    trained_tokens: int
    steps: int
    validation_nats_per_token: float
    validation_bits_per_byte: float


class TuningRecord(Record):
    """training.json of fine-tuning and DPO."""

    steps: int


class LawRecord(Record):
    factor: float
    exponent: float
    forecast: float


class LadderRecord(Record):
    parameters: float
    body_parameters: float
    loss: float


class SizeRecord(Record):
    parameters: float
    body_parameters: float


class ForecastRecord(Record):
    """forecast.json."""

    axis: str
    ladder: dict[str, LadderRecord]
    flagship: SizeRecord
    parameters: LawRecord
    body_parameters: LawRecord


class AnswerRecord(Record):
    """A line of answers.jsonl."""

    task: str
    prompt: str
    answer: str
    given: str
    right: bool


class EstimateRecord(Record):
    """A figure with its interval; what is not known is null."""

    value: float | None
    low: float | None
    high: float | None


class FiguresRecord(RootModel[dict[str, int | EstimateRecord | dict[str, Any]]]):
    """A model's figures on a standard task: ``n``, each metric, and ``groups``."""


class ModelResultsRecord(Record):
    model: str
    tasks: dict[str, FiguresRecord]


class BenchmarkComparisonRecord(Record):
    shown: Literal["better", "worse", "nothing"]
    sentence: str


class ResultsRecord(Record):
    """results.json of an evaluation."""

    models: list[ModelResultsRecord]
    comparisons: list[BenchmarkComparisonRecord]
    ratios: list[str]


class ValidationRecord(Record):
    bits_per_byte: float


class ExaminationCounts(Record):
    questions: int
    validation: ValidationRecord | None = None


class PairsCounts(Record):
    """Counts of annotators' preferences, or of verdicts where nobody annotates."""

    right_share: float | None
    pairs: int
    held_out_pairs: int
    edits: int | None = None


class SelectionCounts(Record):
    kept: int


class GateCounts(Record):
    promoted: str | None
    reason: str
    scores: dict[str, float]


class RewardCounts(Record):
    """Accuracies are (value, low, high), or None for a set without pairs."""

    pairs: int
    held_out_pairs: int
    train_accuracy: tuple[float, float, float] | None = None
    held_out_accuracy: tuple[float, float, float] | None = None


class QuantizationCounts(Record):
    parameters: int
    parameters_fp8: int
    bytes_before: int
    bytes_after: int


class DivergenceRecord(Record):
    kl: float
    kl_p99: float
    top1_agreement: float
    tokens: int


class DifferenceRecord(Record):
    value: float
    low: float
    high: float


class RewardComparisonRecord(Record):
    """``difference`` is None if fewer than two answers were scored."""

    difference: DifferenceRecord | None


class AnswerComparisonRecord(Record):
    reward: RewardComparisonRecord


class ComparisonRecord(Record):
    """comparison.json."""

    text: DivergenceRecord
    answers: AnswerComparisonRecord | None


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A finished stage: its folder and manifest."""

    name: str
    folder: Path
    manifest: Manifest

    def counts(self, schema: type[Schema]) -> Schema:
        """The counts of the manifest."""
        return _checked(schema, self.manifest.counts, f"{self.folder / 'manifest.json'}, counts", self.folder)

    def json(self, file: str, schema: type[Schema]) -> Schema:
        """A JSON file of the artifact."""
        return _checked(schema, _loads(self._text(file), self.folder / file), str(self.folder / file), self.folder)

    def lines(self, file: str, schema: type[Schema]) -> list[Schema]:
        """A JSON Lines file of the artifact."""
        path = self.folder / file
        return [
            _checked(schema, _loads(line, path), f"{path}, line {number}", self.folder)
            for number, line in enumerate(self._lines(file), 1)
        ]

    def events(self, kind: str, *fields: str) -> list[tuple[float, ...]]:
        """The numeric ``fields`` of each event of ``kind`` in the training log."""
        path, rows = self.folder / "events.jsonl", []
        for number, line in enumerate(self._lines("events.jsonl"), 1):
            event = _loads(line, path)
            if isinstance(event, dict) and event.get("kind") == kind:
                missing = [name for name in fields if not isinstance(event.get(name), int | float)]
                if missing:
                    raise _damaged(f"{path}, line {number}: no number {missing[0]} in this event", self.folder)
                rows.append(tuple(float(event[name]) for name in fields))
        if not rows:
            raise _damaged(f"{path} holds no {kind} event", self.folder)
        return rows

    def _lines(self, file: str) -> list[str]:
        """Split at line feeds only: texts may contain other characters at which ``splitlines`` splits."""
        return [line for line in self._text(file).split("\n") if line]

    def _text(self, file: str) -> str:
        try:
            return (self.folder / file).read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise _damaged(f"{self.folder / file} is missing or not UTF-8; the report needs it", self.folder) from error


class Records(dict[str, StageRecord]):
    """The finished stages of a run by name, in the order of its plan."""

    def __missing__(self, name: str) -> StageRecord:
        raise DamagedError(
            f"the report needs stage {name}, which the run does not have", "Run the recipe again without --until"
        )


def read_stages(folders: Mapping[str, Path]) -> Records:
    """Read the manifests of stages from their ``folders``.

    Raises:
        DamagedError: a manifest is missing or cannot be read.
    """
    records = Records()
    for name, folder in folders.items():
        manifest = read_manifest(folder)
        if manifest is None:
            raise _damaged(f"stage {name} is not finished: {folder} has no manifest", folder)
        records[name] = StageRecord(name, folder, manifest)
    return records


def _loads(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _damaged(f"{path} is not valid JSON: {error}", path.parent) from error


def _checked(schema: type[Schema], value: Any, where: str, folder: Path) -> Schema:
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise _damaged(f"{where}: key {key}: {problem['msg'].lower()}", folder) from error


def _damaged(what: str, folder: Path) -> DamagedError:
    return DamagedError(what, f"Delete {folder} and run the recipe again")
