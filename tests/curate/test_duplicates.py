"""Exact and near duplicates against plain definitions."""

from __future__ import annotations

from itertools import combinations
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from herdlm.curate.config import NearDuplicatesConfig
from herdlm.curate.duplicates.exact import digest
from herdlm.curate.duplicates.groups import connect, edges, repeats
from herdlm.curate.duplicates.minhash import band_keys, signature
from herdlm.curate.words import normalize
from tests.curate.crawls import article

CONFIG = NearDuplicatesConfig()


def signatures(texts: list[str], config: NearDuplicatesConfig = CONFIG) -> np.ndarray:
    return np.stack([signature(normalize(text).split(), config) for text in texts])


def near_duplicates(texts: list[str], config: NearDuplicatesConfig = CONFIG) -> dict[int, int]:
    """The texts that repeat an earlier one, and which."""
    keys = band_keys(signatures(texts, config), config.bands)
    rows = np.repeat(np.arange(len(texts)), config.bands)
    found = repeats(edges(keys.ravel(), rows))
    return dict(zip(*(array.tolist() for array in found), strict=True))


def jaccard(one: str, other: str, n: int = CONFIG.ngram_words) -> float:
    def shingles(text: str) -> set[tuple[str, ...]]:
        words = normalize(text).split()
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    left, right = shingles(one), shingles(other)
    return len(left & right) / len(left | right)


def edited(text: str, share: float, rng: Random) -> str:
    """The text with a share of its words replaced."""
    words = text.split()
    for at in rng.sample(range(len(words)), round(share * len(words))):
        words[at] = f"w{rng.randrange(10**6)}"
    return " ".join(words)


def test_normalize() -> None:
    assert normalize("  The  Quick,\n brown—FOX! 3.5_a ") == "the quick brown fox 3 5 a"
    assert normalize("日本語 テスト。") == "日 本 語 テ ス ト"
    assert digest("a b") == digest("a b") != digest("a c")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
@settings(max_examples=15)
def test_exact_duplicates_are_all_but_the_first(keys: list[int]) -> None:
    digests = np.array([digest(str(key)) for key in keys], np.uint64)
    expected = [[row, keys.index(key)] for row, key in enumerate(keys) if keys.index(key) != row]
    assert edges(digests, np.arange(len(keys))).tolist() == expected


def test_signatures_estimate_jaccard_similarity() -> None:
    rng = Random(0)
    base = " ".join(article("en", key) for key in "abcd")
    texts = [base, *(edited(base, share, rng) for share in (0.005, 0.02, 0.05, 0.1)), article("en", "z")]
    found = signatures(texts)
    for one, other in combinations(range(len(texts)), 2):
        true = jaccard(texts[one], texts[other])
        estimate = (found[one] == found[other]).mean()
        assert abs(estimate - true) < 4 * np.sqrt(true * (1 - true) / found.shape[1]) + 0.02


def test_clusters_follow_exact_jaccard() -> None:
    """Of planted groups every near-equal text is found, and no text of low similarity to all others is dropped."""
    rng = Random(1)
    texts = []
    for group in range(12):
        base = " ".join(article("en", f"{group} {part}") for part in range(4))
        texts += [base, *(edited(base, share, rng) for share in (0.002, 0.005, 0.3))]
    texts += [article("de", str(single)) for single in range(12)]
    rng.shuffle(texts)
    dropped = near_duplicates(texts)
    similar = {(i, j): jaccard(texts[i], texts[j]) for i, j in combinations(range(len(texts)), 2)}
    for (i, j), similarity in similar.items():
        if similarity > 0.9:
            assert dropped.get(j) in (i, dropped.get(i)), similarity
    for row, first in dropped.items():
        assert first < row
        assert similar[first, row] > 0.6
    assert len(dropped) == 24


def test_longer_bands_ask_for_more_similarity() -> None:
    rng = Random(2)
    base = " ".join(article("en", key) for key in "abcd")
    texts = [base, *(edited(base, 0.02, rng) for _ in range(20))]
    kept = {}
    for bands, rows in ((28, 2), (14, 8), (2, 56)):
        config = NearDuplicatesConfig(bands=bands, rows=rows)
        kept[rows] = len(near_duplicates(texts, config))
    assert kept[2] == 20
    assert kept[2] >= kept[8] > kept[56]


def test_band_keys_are_equal_where_the_bands_are() -> None:
    rng = np.random.default_rng(0)
    found = rng.integers(0, 2**32, (50, 112), dtype=np.uint32)
    found[1, 8:16] = found[0, 8:16]  # band 1 of 14
    found[2, :8] = found[0, 8:16]  # the same minima in another band are another key
    keys = band_keys(found, 14)
    assert keys.shape == (50, 14)
    assert keys[1, 1] == keys[0, 1]
    assert len(np.unique(keys)) == keys.size - 1


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=40))
def test_connect_finds_the_connected_groups(pairs: list[tuple[int, int]]) -> None:
    groups = {node: {node} for pair in pairs for node in pair}
    for one, other in pairs:
        if groups[one] is not groups[other]:
            groups[one] |= groups[other]
            for node in groups[other]:
                groups[node] = groups[one]
    rows, firsts = connect(np.array(pairs, np.int64))
    assert rows.tolist() == sorted(groups)
    assert firsts.tolist() == [min(groups[node]) for node in sorted(groups)]


def test_connect_settles_long_chains() -> None:
    count = 20_000
    order = np.random.default_rng(3).permutation(count)
    rows, firsts = connect(np.stack([order[:-1], order[1:]], axis=1).astype(np.int64))
    assert len(rows) == count
    assert not firsts.any()
