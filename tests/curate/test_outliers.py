"""Word counts add up, and the divergence is the one of its definition."""

from __future__ import annotations

import zlib
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.base.errors import DamagedError
from herdlm.curate.config import OutliersConfig
from herdlm.curate.outliers import BUCKETS, Reference, WordCounts, check_divergence, count_words, divergence, references
from herdlm.curate.words import Words
from tests.curate.crawls import article

TEXTS = st.lists(st.sampled_from(["a", "b b", "C c c", "d e", "f"]), max_size=12).map(" ".join)


def counted(*texts: str, language: str = "en") -> WordCounts:
    counts = WordCounts()
    for text in texts:
        counts.add(Words(text), language)
    return counts


@settings(max_examples=30)
@given(TEXTS, TEXTS)
def test_divergence_is_its_definition(text: str, corpus: str) -> None:
    reference = Reference(counted(corpus).by_language["en"])
    q = reference.shares
    p = np.zeros(BUCKETS)
    for bucket, count in zip(*count_words(Words(text)), strict=True):
        p[bucket] += count
    p = (p + 500 * q) / (p.sum() + 500)
    assert np.isclose(divergence(text, reference), float(np.sum(p * np.log2(p / q))), atol=1e-9)


def test_counts_of_shards_add_up(tmp_path: Path) -> None:
    texts = [article("en", key) for key in "abcd"]
    whole, parts = counted(*texts), counted(*texts[:2]) + counted(*texts[2:])
    parts.add(Words(article("de", "a")), "de")
    assert np.array_equal(whole.by_language["en"], parts.by_language["en"])
    assert list((counted("a", language="xx") + parts).by_language) == ["de", "en", "xx"]
    parts.write(tmp_path / "counts.npz")
    again = WordCounts.read(tmp_path / "counts.npz")
    assert list(again.by_language) == ["de", "en"]
    assert all(np.array_equal(again.by_language[name], parts.by_language[name]) for name in ("de", "en"))


def test_a_words_bucket_is_that_of_counts_written_long_ago() -> None:
    words = Words("Harbour boats harbour")
    buckets = [zlib.crc32(word) % BUCKETS for word in (b"harbour", b"boats", b"harbour")]
    found = np.zeros(BUCKETS, np.int64)
    np.add.at(found, *count_words(words))
    assert np.flatnonzero(found).tolist() == sorted(set(buckets))
    assert found[buckets].tolist() == [2, 1, 2]


def test_damaged_counts_stop_the_run(tmp_path: Path) -> None:
    path = tmp_path / "counts.npz"
    with pytest.raises(DamagedError, match="cannot be read"):
        WordCounts.read(path)
    path.write_bytes(b"PK nonsense")
    with pytest.raises(DamagedError, match="cannot be read"):
        WordCounts.read(path)
    np.savez(path, en=np.full(BUCKETS, -1))
    with pytest.raises(DamagedError, match="array of"):
        WordCounts.read(path)
    np.savez(path, en=np.zeros(3, np.int64))
    with pytest.raises(DamagedError, match="no array of"):
        WordCounts.read(path)


def test_strange_words_are_outliers_and_the_corpus_own_are_not() -> None:
    rng = Random(0)
    counts = counted(*[article("en", key) for key in "abcdefghijklmnopqrstuvwxyz"] * 40)
    corpus = references(counts, OutliersConfig(min_reference_words=100))
    config = OutliersConfig()
    strange = " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(1000))
    value, reason = check_divergence(strange, "en", corpus, config)
    assert reason == "outlier_words"
    assert value > config.max_divergence
    assert check_divergence(article("en", "a"), "en", corpus, config)[1] is None
    assert check_divergence(strange, "de", corpus, config) == (0.0, None)
    assert references(counts, OutliersConfig()) == {}  # too few words to be a reference
    assert check_divergence("", "en", corpus, config) == (0.0, None)
