"""Drops documents whose words are far from the corpus's, by the Kullback-Leibler divergence of their distributions.

Documents full of rare words (identifiers, scrambled text, text in another language) are outliers that pass other rules
(Llama 3, arXiv 2407.21783, section 3.1.1). Words are lower-cased and hashed into buckets. The reference is the counts
over a language's documents. Counts of shards are added.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from herdlm.base.errors import DamagedError
from herdlm.base.recipe import Section
from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.corpus import Corpus
from herdlm.curate.step import DocumentStep
from herdlm.curate.words import Words

BUCKETS = 1 << 16
CACHED_WORDS = 1 << 17  # about 20 MB per process


class OutliersConfig(Section):
    """How far the words of a document can be from the corpus's."""

    max_divergence: float = Field(4.0, gt=0, description="bits")
    prior_words: int = Field(500, ge=1, description="words of the corpus's distribution mixed into each document's")
    min_reference_words: int = Field(1_000_000, ge=1, description="languages with fewer in the corpus are not measured")


class Outliers(DocumentStep):
    """Drops texts by the divergence of their words from those of their language."""

    name, prose_only = "outliers", True
    settings: OutliersConfig

    def run(self, batch: Batch, corpus: Corpus) -> Outcome:
        references = _references(corpus.words_file, self.settings)
        texts = zip(batch["text"], batch["language"], strict=True)
        return Outcome([check_divergence(text, language, references, self.settings)[1] for text, language in texts])


@lru_cache(maxsize=1)
def _references(words_file: Path, config: OutliersConfig) -> dict[str, Reference]:
    return references(WordCounts.read(words_file), config)


def words_file(pages: Path) -> Path:
    """Return the path of the word counts of a file of pages."""
    return pages.with_suffix(".words.npz")


class _Buckets(dict[str, int]):
    def __missing__(self, word: str) -> int:
        if len(self) >= CACHED_WORDS:
            self.clear()
        self[word] = bucket = zlib.crc32(word.encode("utf-8", "replace")) % BUCKETS
        return bucket


_buckets = _Buckets()


def count_words(words: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the buckets of a text's different words and how often each occurs, two int64[M]. Buckets can repeat."""
    lowered = words.lowered
    return np.fromiter(map(_buckets.__getitem__, lowered), np.int64, len(lowered)), words.often


@dataclass
class WordCounts:
    """Counts by language over documents, int64[BUCKETS] each. ``a + b`` adds the counts."""

    by_language: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def add(self, words: Words, language: str) -> None:
        """Count the words of a document."""
        if language not in self.by_language:
            self.by_language[language] = np.zeros(BUCKETS, np.int64)
        np.add.at(self.by_language[language], *count_words(words))

    def __add__(self, other: WordCounts) -> WordCounts:
        languages = sorted(self.by_language | other.by_language)
        none = np.zeros(BUCKETS, np.int64)
        return WordCounts(
            {name: self.by_language.get(name, none) + other.by_language.get(name, none) for name in languages}
        )

    def write(self, path: Path) -> None:
        """Write a NumPy archive with an array for each language. The same counts give the same bytes."""
        with path.open("wb") as file:
            np.savez(file, **{name: self.by_language[name] for name in sorted(self.by_language)})  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path) -> WordCounts:
        """Read what ``write`` wrote.

        Raises:
            DamagedError: The file is missing, or is not an archive of counts.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                counts = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError) as error:
            raise DamagedError(f"{path} cannot be read as word counts: {error}", "Run the curation again") from error
        for name, array in counts.items():
            if array.shape != (BUCKETS,) or array.dtype != np.int64 or array.min() < 0:
                raise DamagedError(f"{path}: {name} is not an array of {BUCKETS} counts", "Run the curation again")
        return cls(counts)


class Reference:
    """The distribution of a language's words in the corpus, with ``prior`` words spread evenly over all buckets."""

    def __init__(self, counts: NDArray[np.int64], prior: float = BUCKETS / 16) -> None:
        self.words = int(counts.sum())
        smoothed = counts + prior / BUCKETS
        self.shares: NDArray[np.float64] = smoothed / smoothed.sum()


def references(counts: WordCounts, config: OutliersConfig) -> dict[str, Reference]:
    """Return the references of the languages with enough words. Documents of the others are not measured."""
    found = {name: Reference(array) for name, array in sorted(counts.by_language.items())}
    return {name: reference for name, reference in found.items() if reference.words >= config.min_reference_words}


def divergence(text: str, reference: Reference, prior_words: int = 500) -> float:
    """Return KL(document || corpus) in bits: 0 for a text like the corpus, more the more outlying its words are.

    The document's distribution is shrunk toward the corpus's q by m = ``prior_words`` words of it, (c + m q) / (n + m)
    for counts c of n words. Otherwise, every short text would be an outlier for the words it has no room for. Buckets
    that the document does not use are summed in closed form.
    """
    buckets, counts = count_words(Words(text))
    n = int(counts.sum())
    if n == 0:
        return 0.0
    buckets, places = np.unique(buckets, return_inverse=True)
    counts = np.bincount(places, counts)
    q = reference.shares[buckets]
    p = (counts + prior_words * q) / (n + prior_words)
    shrunk = prior_words / (n + prior_words)  # p / q of the buckets that the document does not use
    rest = shrunk * (1.0 - float(q.sum())) * float(np.log2(shrunk))
    return max(float(np.sum(p * np.log2(p / q))) + rest, 0.0)


def check_divergence(
    text: str, language: str, corpus: Mapping[str, Reference], config: OutliersConfig
) -> tuple[float, str | None]:
    """Return a text's divergence (0 if its language has no reference), and ``outlier_words`` or None."""
    reference = corpus.get(language)
    if reference is None:
        return 0.0, None
    value = divergence(text, reference, config.prior_words)
    return value, "outlier_words" if value > config.max_divergence else None
