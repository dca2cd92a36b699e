"""Graders: classifiers whose calibrated score, in [0, 1], says how good a text is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from herdlm.base.artifact import read_manifest, verify, write_text_durably
from herdlm.base.errors import DamagedError, InputError
from herdlm.curate.classify.calibrate import Calibration
from herdlm.curate.classify.linear import LinearClassifier

KIND = "grader"
CALIBRATION = "calibration.json"
DECIMALS = 4
GOOD, NOT_GOOD = "good", "not good"


class Grader:
    """A calibrated classifier of good texts: a score is the probability that the labeler calls the text good."""

    def __init__(self, classifier: LinearClassifier, calibration: Calibration) -> None:
        self.classifier, self.calibration = classifier, calibration

    def score(self, texts: Sequence[str], languages: Sequence[str]) -> NDArray[np.float64]:
        """Return the scores (N,) of texts in ``languages``, in [0, 1] with 4 decimals."""
        return np.round(self.calibration(margins(self.classifier, texts), languages), DECIMALS)

    def save(self, folder: Path) -> None:
        """Write the grader's files to an existing folder."""
        self.classifier.save(folder)
        write_text_durably(folder / CALIBRATION, self.calibration.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Grader:
        """Load the grader published in ``folder``.

        Raises:
            InputError: There is no grader.
            DamagedError: A file is missing or changed.
        """
        require_model(folder, KIND, "herdlm grade train")
        classifier = LinearClassifier.load(folder)
        try:
            calibration = Calibration.model_validate_json((folder / CALIBRATION).read_text(encoding="utf-8"))
        except (ValidationError, OSError) as error:
            raise DamagedError(f"{folder / CALIBRATION} cannot be read", "Train the grader again") from error
        return cls(classifier, calibration)


def margins(classifier: LinearClassifier, texts: Sequence[str]) -> NDArray[np.float64]:
    """Return how far the logit of good is above that of not good, (N,)."""
    logits = classifier.logits(texts)
    good = classifier.labels.index(GOOD)
    return np.asarray(logits[:, good] - logits[:, 1 - good])


def require_model(folder: Path, kind: str, command: str) -> None:
    """Check that ``folder`` is a complete artifact of ``kind``, which ``command`` makes.

    Raises:
        InputError: It is not.
        DamagedError: A file is missing or changed.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"there is no {kind} in {folder}", f"Make one with `{command}`, or name another folder")
    if manifest.kind != kind:
        raise InputError(
            f"{folder} is an artifact of kind {manifest.kind}, not a {kind}", f"Name a folder that `{command}` made"
        )
    verify(folder, manifest)
