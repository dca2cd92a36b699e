"""The settings of `herdlm label` and `herdlm grade`. Importing it needs none of the curation libraries."""

from __future__ import annotations

from pydantic import Field, model_validator

from herdlm.base.recipe import Section
from herdlm.curate.classify.config import ClassifierConfig


class GradeConfig(Section):
    """How a grader is trained and evaluated: see ``train.py``."""

    classifier: ClassifierConfig = ClassifierConfig()
    good: float = Field(3.0, description="labels with a score: the lowest score of a good text")
    good_labels: tuple[str, ...] = Field(
        ("good",), min_length=1, description="labels with a name: the names of good texts"
    )
    held_out_share: float = Field(0.2, gt=0, lt=1, description="of the labels, for the report")
    calibration_share: float = Field(0.2, gt=0, lt=1, description="of the labels, for calibration")
    min_calibration_texts: int = Field(
        100, ge=10, description="of a language, for its own calibration; with fewer, that of all languages is used"
    )
    report_at: float = Field(0.5, gt=0, lt=1, description="the lowest score that the report counts as kept")

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> GradeConfig:
        if self.held_out_share + self.calibration_share > 0.9:
            raise ValueError("held_out_share and calibration_share leave less than a tenth of the labels to train on")
        return self


class LabelConfig(Section):
    """How a language model is asked for labels: see ``ask.py``."""

    sample: int = Field(0, ge=0, description="label this many documents, chosen by their ids; 0 for all")
    max_chars: int = Field(6_000, ge=100, description="of a document that are shown, from the start")
    max_tokens: int = Field(400, ge=1, description="of an answer")
    concurrency: int = Field(8, ge=1, description="pending questions at a time")
    timeout_seconds: float = Field(120.0, gt=0, description="for one try")
    tries: int = Field(6, ge=1, description="for one document, before it is left to a later run")
    first_wait_seconds: float = Field(1.0, ge=0, description="after a failed try; doubled after each one")
    max_wait_seconds: float = Field(60.0, ge=0, description="also the upper bound of a server's Retry-After")
    give_up_after: int = Field(20, ge=1, description="documents in a row without an answer before the run stops")
