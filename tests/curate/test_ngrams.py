"""Counts of repeated n-grams are those of a slow and obvious count."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from herdlm.curate.ngrams import NGrams

WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "dd"]), max_size=60) | st.lists(
    st.sampled_from(list("abcdefghijklmnop")), max_size=80
)


def top_chars(words: list[str], n: int) -> int:
    """Of the first of the commonest n-grams: its occurrences' characters; 0 where nothing repeats."""
    counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    gram, most = counts.most_common(1)[0] if counts else ((), 0)
    return most * sum(map(len, gram)) if most > 1 else 0


def duplicate_chars(words: list[str], n: int) -> int:
    seen, covered = set(), set()
    for i in range(len(words) - n + 1):
        gram = tuple(words[i : i + n])
        if gram in seen:
            covered.update(range(i, i + n))
        seen.add(gram)
    return sum(len(words[i]) for i in covered)


def ngrams(words: list[str]) -> NGrams:
    ids = np.unique(words, return_inverse=True)[1].astype(np.int64) if words else np.zeros(0, np.int64)
    return NGrams(ids, np.array([len(word) for word in words], np.int64))


@given(WORDS)
def test_duplicates_at_every_size(words: list[str]) -> None:
    grams = ngrams(words)
    for n in range(1, 13):
        assert grams.duplicate_chars(n) == duplicate_chars(words, n)


@given(WORDS, st.integers(2, 8))
def test_duplicates_from_any_size_on(words: list[str], first: int) -> None:
    grams = ngrams(words)
    for n in range(first, 13, 2):
        assert grams.duplicate_chars(n) == duplicate_chars(words, n)


@given(WORDS)
def test_the_commonest_ngram(words: list[str]) -> None:
    grams = ngrams(words)
    for n in (2, 3, 4, 6):
        chars = top_chars(words, n)
        for limit in (0.0, chars - 0.5, chars, chars + 0.5):
            if limit >= 0:
                assert grams.top_chars_exceed(n, limit) == (chars > limit)


@given(WORDS)
def test_what_longer_ngrams_cover_shorter_ones_cover(words: list[str]) -> None:
    covered = [duplicate_chars(words, n) for n in range(1, 12)]
    assert covered == sorted(covered, reverse=True)
