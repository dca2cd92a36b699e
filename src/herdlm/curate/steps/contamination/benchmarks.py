"""Finds examples of benchmarks in documents, by the word n-grams that they share.

As in section 5.1.4 of the Llama 3 report, an example's overlap is the share of its words in an n-gram (of 8 words by
default) that the text has as well, and each benchmark has its own threshold. The overlap with a document decides
whether it is flagged or dropped. The overlap with the whole corpus decides which examples are contaminated. Common
phrases alone do not count: an n-gram that many examples of a benchmark share is part of its template, and is left out
of the share on both sides.

N-grams are 64-bit hashes in a sorted array. A document's hashes are first looked up in a bit table, which rejects
almost all of them. The rest are searched for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from herdlm.base.errors import InputError
from herdlm.base.recipe import Section, parse
from herdlm.curate.classify.word_hashes import WordHashes
from herdlm.curate.rows import read_rows
from herdlm.curate.words import normalize

CONTAMINATED = "contaminated"
BUCKETS_PER_NGRAM = 16
_MULTIPLY, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)


class BenchmarkConfig(Section):
    """A benchmark whose examples must not be in the corpus."""

    path: str = Field(description="a JSONL (also .gz) or Parquet file")
    fields: tuple[str, ...] = Field(("text",), min_length=1, description="columns whose texts, joined, are an example")
    ngram_words: int = Field(8, ge=2)
    min_overlap: float = Field(0.5, gt=0, le=1, description="lowest share of an example's words that counts as leaked")
    max_examples_per_ngram: int = Field(
        10, ge=1, description="n-grams of more examples are the benchmark's template and do not count"
    )
    action: Literal["flag", "drop"] = Field("drop", description="what to do with a document that has an example")


class ContaminationConfig(Section):
    """The benchmarks to look for."""

    benchmarks: dict[str, BenchmarkConfig] = Field({}, description="by the name used in reports")


@dataclass(frozen=True, slots=True)
class Hits:
    """What a text shares with a benchmark: the numbers of the n-grams, and the overlap of each example they are in."""

    ngrams: NDArray[np.int64]
    examples: NDArray[np.int64]
    overlaps: NDArray[np.float64]


def ngram_hashes(words: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """Return the hash of every run of ``n`` words: (W,) word hashes -> (max(W - n + 1, 0),)."""
    count = len(words) - n + 1
    if count < 1:
        return np.empty(0, np.uint64)
    hashes = words[:count].copy()
    for place in range(1, n):
        hashes ^= hashes >> _HALF
        hashes *= _MULTIPLY
        hashes += words[place : place + count]
    hashes ^= hashes >> _HALF
    return hashes * _MULTIPLY


class Benchmark:
    """The n-grams of a benchmark, ready for look-up.

    ``texts`` are its examples. An example without an n-gram that counts (shorter than n words, or only template) cannot
    be judged. ``judged`` (E,) tells which can.
    """

    def __init__(self, name: str, texts: Sequence[str], config: BenchmarkConfig) -> None:
        self.name, self.config = name, config
        hashes = WordHashes()
        words = [hashes.of(normalize(text).split()) for text in texts]
        grams = [ngram_hashes(each, config.ngram_words) for each in words]
        firsts = list(accumulate(map(len, words), initial=0))
        # For each n-gram: its hash, its example, and the index of its first word among the words of all examples.
        keys = np.concatenate([np.empty(0, np.uint64), *grams])
        examples = np.repeat(np.arange(len(texts)), list(map(len, grams)))
        begins = (first + np.arange(len(each)) for first, each in zip(firsts, grams, strict=False))
        places = np.concatenate([np.empty(0, np.int64), *begins])
        counts = ~_of_many_examples(keys, examples, config.max_examples_per_ngram)
        order = np.argsort(keys[counts], kind="stable")
        self._places = places[counts][order]
        self.keys, self._first, self._often = np.unique(keys[counts][order], return_index=True, return_counts=True)
        self._example_of_word = np.repeat(np.arange(len(texts)), list(map(len, words)))
        self._examples = len(texts)
        self._countable_words = self._covered_words(np.arange(len(self.keys)))
        self.judged = self._countable_words > 0
        bits = max(len(self.keys) * BUCKETS_PER_NGRAM, 64).bit_length()
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(2**bits, bool)
        self._filter[self.keys >> self._shift] = True

    @classmethod
    def load(cls, name: str, config: BenchmarkConfig) -> Benchmark:
        """Load the benchmark of a file.

        Raises:
            InputError: The file is missing or damaged, lacks a field, or has no example that is long enough.
        """
        rows = read_rows(Path(config.path), config.fields)
        benchmark = cls(name, ["\n".join(str(row[field]) for field in config.fields) for row in rows], config)
        if not benchmark.judged.any():
            raise InputError(
                f"benchmark {name}: no example in {config.path} has {config.ngram_words} words that count",
                "Name other fields, or lower ngram_words",
            )
        return benchmark

    def __len__(self) -> int:
        return self._examples

    def find(self, grams: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the numbers of the benchmark's n-grams that are in ``grams``, ascending."""
        likely = grams[self._filter[grams >> self._shift]]
        if not len(likely):
            return np.empty(0, np.int64)
        at = np.minimum(np.searchsorted(self.keys, likely), len(self.keys) - 1)
        return np.unique(at[self.keys[at] == likely])

    def overlap(self, found: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the examples that have the n-grams numbered ``found``, and their overlaps."""
        covered = self._covered_words(found)
        examples = np.flatnonzero(covered)
        return examples, covered[examples] / self._countable_words[examples]

    def _covered_words(self, found: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return for each example the number of its words in an n-gram of ``found``."""
        often = self._often[found]
        within = np.arange(often.sum()) - np.repeat(np.cumsum(often) - often, often)
        places = self._places[np.repeat(self._first[found], often) + within]
        words = np.unique(places[:, None] + np.arange(self.config.ngram_words))
        return np.bincount(self._example_of_word[words], minlength=self._examples)


def _of_many_examples(keys: NDArray[np.uint64], examples: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Return for each n-gram whether it occurs in more than ``most`` examples."""
    if not len(keys):
        return np.empty(0, bool)
    numbers = np.unique(keys, return_inverse=True)[1]
    different = np.unique(np.stack([numbers, examples], axis=1), axis=0)
    return (np.bincount(different[:, 0]) > most)[numbers]


class Contamination:
    """All benchmarks of a recipe, which look at one text at a time."""

    def __init__(self, benchmarks: Sequence[Benchmark]) -> None:
        self.benchmarks = tuple(benchmarks)
        self._hashes = WordHashes()

    @classmethod
    def load(cls, benchmarks: Mapping[str, BenchmarkConfig]) -> Contamination:
        """Read the files of ``benchmarks``, by name.

        Raises:
            InputError: One is missing, damaged or unusable.
        """
        return cls([Benchmark.load(name, config) for name, config in benchmarks.items()])

    def hits(self, text: str) -> dict[str, Hits]:
        """Return what ``text`` shares with each benchmark that it has an n-gram of."""
        words = self._hashes.of(normalize(text).split())
        grams = {n: ngram_hashes(words, n) for n in {b.config.ngram_words for b in self.benchmarks}}
        found = {b: b.find(grams[b.config.ngram_words]) for b in self.benchmarks}
        return {b.name: Hits(numbers, *b.overlap(numbers)) for b, numbers in found.items() if len(numbers)}

    def overlaps(self, text: str) -> dict[str, float]:
        """Return for each benchmark the highest overlap of one example with ``text``, 0 if they share no n-gram."""
        hits = self.hits(text)
        return {b.name: float(hits[b.name].overlaps.max()) if b.name in hits else 0.0 for b in self.benchmarks}

    def check(self, hits: Mapping[str, Hits]) -> tuple[list[str], str | None]:
        """Return the benchmarks of which a text has an example, and the reason to drop it or None."""
        leaked = [b for b in self.benchmarks if b.name in hits and hits[b.name].overlaps.max() >= b.config.min_overlap]
        dropped = any(b.config.action == "drop" for b in leaked)
        return [b.name for b in leaked], CONTAMINATED if dropped else None


def read_config(
    files: Sequence[str], fields: Sequence[str], ngram_words: int, min_overlap: float
) -> ContaminationConfig:
    """Return a configuration that flags examples of the benchmarks ``files``, each given as NAME=FILE.

    Raises:
        InputError: One has another form, a name is used twice, or a value is out of range.
    """
    benchmarks: dict[str, dict[str, object]] = {}
    for item in files:
        name, _, path = item.partition("=")
        if not name or not path or name in benchmarks:
            raise InputError(f"--benchmark {item} is not NAME=FILE with a new name", "Write, say, gsm8k=gsm8k.jsonl")
        benchmarks[name] = {
            "path": path,
            "fields": list(fields),
            "ngram_words": ngram_words,
            "min_overlap": min_overlap,
            "action": "flag",
        }
    return parse(ContaminationConfig, {"benchmarks": benchmarks}, "the command line")
