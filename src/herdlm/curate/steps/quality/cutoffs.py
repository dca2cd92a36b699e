"""Cutoffs of quality by language: a lowest score, or the best share of the language's documents.

A share can only be cut when all scores are known. Scores have four decimals, so counting each one gives the exact
cutoff, in memory that does not grow with the corpus. Counts of shards are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from herdlm.base.recipe import Section

STEPS = 10_000  # a score is a multiple of 1 / STEPS
LOW_QUALITY = "low_quality"


class CutoffConfig(Section):
    """Which documents of a language to keep: those with ``min_score`` or more, and the best ``keep_share``."""

    min_score: float = Field(0.0, ge=0, le=1)
    keep_share: float = Field(1.0, gt=0, le=1, description="the best share of the language's documents")


class QualityConfig(CutoffConfig):
    """How documents are scored, and which are kept. Without a model, countable properties decide (``countable.py``)."""

    model: str = Field("", description="a grader's folder, as `herdlm grade train` makes")
    languages: dict[str, CutoffConfig] = Field({}, description="limits of single languages, by ISO 639-1 code")


class ScoreCounts:
    """Counts how often each score occurs in each language."""

    def __init__(self) -> None:
        self.by_language: dict[str, NDArray[np.int64]] = {}

    def add(self, scores: Sequence[float] | NDArray[np.float64], languages: Sequence[str]) -> None:
        """Count the scores, in [0, 1], of documents in ``languages``."""
        steps = np.rint(np.asarray(scores, np.float64) * STEPS).astype(np.int64)
        names = np.asarray(languages, dtype=object)
        for language in sorted(set(languages)):
            of_language = self.of(language)
            of_language += np.bincount(steps[names == language], minlength=STEPS + 1)

    def merge(self, other: ScoreCounts) -> None:
        """Add another shard's counts."""
        for language, counts in other.by_language.items():
            of_language = self.of(language)
            of_language += counts

    def of(self, language: str) -> NDArray[np.int64]:
        """Return the counts of a language by score, (STEPS + 1,)."""
        return self.by_language.setdefault(language, np.zeros(STEPS + 1, np.int64))


def cutoffs(counts: ScoreCounts, config: QualityConfig) -> dict[str, float]:
    """Return the lowest score that stays, by language.

    It is ``min_score`` or, if higher, the highest score at which at least ``keep_share`` of the language's documents
    stay. Documents of equal score stay or go together.
    """
    return {language: _cutoff(each, limits(language, config)) for language, each in counts.by_language.items()}


def limits(language: str, config: QualityConfig) -> CutoffConfig:
    """Return the limits of a language: its own, or those for all."""
    return config.languages.get(language, config)


def _cutoff(counts: NDArray[np.int64], config: CutoffConfig) -> float:
    at_least = np.cumsum(counts[::-1])[::-1]  # documents with this score or a higher one
    enough = np.flatnonzero(at_least >= config.keep_share * at_least[0])
    return max(config.min_score, int(enough[-1]) / STEPS)


def check_quality(score: float, language: str, cuts: Mapping[str, float]) -> str | None:
    """Return the reason to drop a document, ``low_quality``, or None."""
    return LOW_QUALITY if score < cuts[language] else None
