"""Exact and near duplicates against plain definitions."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from functools import cache
from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from herdlm.curate.duplicates.groups import connect, edges, repeats
from herdlm.curate.steps.exact_duplicates import digest
from herdlm.curate.steps.near_duplicates import minhash
from herdlm.curate.steps.near_duplicates.minhash import (
    NearDuplicatesConfig,
    band_keys,
    fingerprint,
    minima,
    ngram_hashes,
    signature,
    similarity,
    verified,
)
from herdlm.curate.words import normalize, normalize_lines, split_words
from tests.curate.crawls import article

CONFIG = NearDuplicatesConfig()


def words_of(text: str) -> list[str]:
    return normalize(text).split()


def near_duplicates(
    texts: list[str], config: NearDuplicatesConfig = CONFIG, languages: list[str] | None = None
) -> dict[int, int]:
    """Each row that is dropped, and the first of its group."""
    prints = [fingerprint(words_of(text), config) for text in texts]
    sketches = np.stack([sketch for _, sketch in prints])
    keys = band_keys(np.stack([minima for minima, _ in prints]), config.bands, languages)
    pairs = edges(keys.ravel(), np.repeat(np.arange(len(texts)), config.bands))
    rows, firsts = repeats(verified(pairs, lambda rows: sketches[rows], config.min_similarity))
    return dict(zip(rows.tolist(), firsts.tolist(), strict=True))


@cache
def shingles(text: str, n: int = CONFIG.ngram_words) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[i : i + n]) for i in range(max(len(words) - n, 0) + 1)}


def jaccard(one: str, other: str) -> float:
    return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))


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


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("aZ 1_-\n\r\t\x0bé\u0301Σσ漢字かาัကြ"))))
@settings(max_examples=300)
def test_lines_are_normalized_as_the_text_is(text: str) -> None:
    """Against the definition: runs of what is neither letter, digit nor mark become one space."""

    def is_separator(c: str) -> bool:
        mark = unicodedata.category(c).startswith("M") and "\u0300" <= c <= "\u20ff"
        return not (c.isalnum() or mark)

    plain = "".join(" " if is_separator(c) else c for c in text.lower())
    assert normalize(text) == " ".join(split_words(plain))
    assert normalize_lines(text) == [
        " ".join(split_words("".join(" " if is_separator(c) else c for c in line))) for line in text.lower().split("\n")
    ]


def test_keys_are_the_same_in_every_process() -> None:
    """Keys of an index made long ago must still be met; Python's own string hashes change from process to process."""
    code = (
        "from herdlm.curate.steps.exact_duplicates import digest\n"
        "from herdlm.curate.steps.near_duplicates.minhash import *\n"
        "from herdlm.curate.steps.near_duplicates.minhash import NearDuplicatesConfig\n"
        "m, s = fingerprint('a b c d e f g'.split(), NearDuplicatesConfig())\n"
        "print(digest('a b'), band_keys(m[None], 14, ['en'])[0, :2].tolist(), s[:4].tolist())\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "2952434739088078779 [6337773443323989793, 10946304509317835592] [225, 102, 128, 208]"


def test_equal_sketches_are_of_similarity_one_and_pass_the_highest_threshold() -> None:
    sketches = np.stack([fingerprint(words_of(article("en", key)), CONFIG)[1] for key in "aab"])
    assert similarity(sketches[:1], sketches[1:2]).tolist() == [1.0]
    pairs = np.array([[1, 0], [2, 0]])
    assert verified(pairs, lambda rows: sketches[rows], 1.0).tolist() == [[1, 0]]


@given(st.lists(st.integers(0, 5), max_size=20))
@settings(deadline=None)
def test_equal_digests_are_all_but_the_first(keys: list[int]) -> None:
    digests = np.array([digest(str(key)) for key in keys], np.uint64)
    found = edges(digests, np.arange(len(keys)))
    assert found.tolist() == [[row, keys.index(key)] for row, key in enumerate(keys) if keys.index(key) != row]


def permuted_minima(ngrams: NDArray[np.uint64], positions: int, seed: int) -> NDArray[np.uint64]:
    """The classical definition: the smallest of one random order of all n-grams for each position."""
    salts = np.random.default_rng(seed).integers(0, 2**63, (positions, 1), dtype=np.uint64)
    return np.min(minhash.mix(ngrams ^ salts), axis=1)


@pytest.mark.parametrize("count", [1, 3, 20, 150, 1500])
@pytest.mark.parametrize("positions", [16, 112, 300])
def test_equal_minima_estimate_jaccard_without_bias_and_no_worse_than_permutations(count: int, positions: int) -> None:
    rng = np.random.default_rng(count * positions)
    errors: dict[str, list[float]] = {"ours": [], "permuted": []}
    trials = 40 if count < 1000 else 10
    for trial in range(trials):
        shared = rng.integers(0, 2**64, count, dtype=np.uint64)
        own = rng.integers(0, 2**64, (2, max(count // 6, 1)), dtype=np.uint64)
        one, other = np.concatenate([shared, own[0]]), np.concatenate([other_order(shared), own[1]])
        true = count / (count + own.size)
        errors["ours"].append((minima(one, positions) == minima(other, positions)).mean() - true)
        both = (permuted_minima(each, positions, trial) for each in (one, other))
        errors["permuted"].append(np.equal(*both).mean() - true)
    deviation = np.sqrt(true * (1 - true) / positions)
    ours, permuted = (np.sqrt(np.mean(np.square(errors[name]))) for name in ("ours", "permuted"))
    assert abs(np.mean(errors["ours"])) < 4 * deviation / np.sqrt(trials)
    assert ours < 1.3 * max(deviation, permuted)


def other_order(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.concatenate([values[::-1], values[:1]])  # a repeated one counts once


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=300), st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_minima_follow_their_definition(ngrams: list[int], positions: int) -> None:
    """Round by round and n-gram by n-gram, without blocks of rounds."""

    def mix(value: int) -> int:
        return int(minhash.mix(np.array([value], np.uint64))[0])

    ngrams = ngrams[:40]
    positions = min(positions, 30)
    expected: dict[int, int] = {}
    for number in range(10_000):
        reached: dict[int, int] = {}
        for ngram in ngrams:
            hashed = mix(ngram ^ mix(number))
            at = (hashed >> 32) * positions >> 32
            reached[at] = min(reached.get(at, 2**32), hashed & 0xFFFFFFFF)
        expected = reached | expected
        if len(expected) == positions:
            break
    assert minima(np.array(ngrams, np.uint64), positions).tolist() == [expected[at] for at in range(positions)]


def test_similarity_of_sketches_estimates_jaccard() -> None:
    rng = Random(0)
    base = " ".join(article("en", key) for key in "abcd")
    texts = [base, *(edited(base, share, rng) for share in (0.005, 0.02, 0.05, 0.1)), article("en", "z")]
    sketches = np.stack([fingerprint(words_of(text), CONFIG)[1] for text in texts])
    for one, other in combinations(range(len(texts)), 2):
        true = jaccard(texts[one], texts[other])
        estimate = similarity(sketches[[one]], sketches[[other]])[0]
        assert abs(estimate - true) < 4 * np.sqrt(true * (1 - true) / CONFIG.sketch) + 0.01


def test_ngrams_of_words_in_order_are_told_apart() -> None:
    assert len(np.unique(ngram_hashes(words_of("a b c d e f g h"), 5))) == 4
    assert len(np.unique(ngram_hashes(words_of("a a a a a b a a a a a b"), 5))) == 6
    assert len({tuple(ngram_hashes(words, 5)) for words in (["a"], ["a", "b"], ["b", "a"], ["a", "a"], [])}) == 5
    words = [f"{number:x}" for number in Random(4).sample(range(10**6), 60_000)]
    assert len(np.unique(ngram_hashes(words, 2))) == 59_999


def test_forgetting_words_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"{number}" for number in range(500)] * 2
    before = signature(words, CONFIG)
    monkeypatch.setattr(minhash, "REMEMBERED_WORDS", 7)
    minhash._word_hashes.clear()
    assert np.array_equal(signature(words, CONFIG), before)
    assert len(minhash._word_hashes) <= 7


def test_texts_shorter_than_an_ngram_are_near_only_when_equal() -> None:
    texts = ["One two three", "one, two THREE!", "one two four", "one two", "", "  "]
    assert near_duplicates(texts) == {1: 0, 5: 4}


@pytest.mark.parametrize(
    "sentence", ["这本手册说明怎样安装和设置系统并且介绍最重要的工具", "このページでは設定ファイルの書き方を説明します"]
)
def test_scripts_without_spaces_are_compared_by_characters(sentence: str) -> None:
    base = "".join(f"第{number}章{sentence[number % 7 :]}" for number in range(60))
    edit = base.replace("第30章", "前言")
    assert 0.9 < jaccard(base, edit) < 1
    assert near_duplicates([base, edit, sentence * 2]) == {1: 0}


def test_groups_follow_exact_jaccard() -> None:
    """Of planted groups every near-equal text is found, and none is dropped that resembles its first too little."""
    rng = Random(1)
    texts = []
    for group in range(12):
        base = " ".join(article("en", f"{group} {part}") for part in range(4))
        texts += [base, *(edited(base, share, rng) for share in (0.002, 0.005, 0.3))]
    texts += [article("de", str(single)) for single in range(12)]
    rng.shuffle(texts)
    dropped = near_duplicates(texts)
    similar = {(i, j): jaccard(texts[i], texts[j]) for i, j in combinations(range(len(texts)), 2)}
    for (i, j), similarity_ in similar.items():
        if similarity_ > 0.9:
            assert dropped.get(j) in (i, dropped.get(i)), similarity_
    for row, first in dropped.items():
        assert first < row
        assert similar[first, row] > 0.75
    assert len(dropped) == 24


def test_candidates_that_are_not_similar_enough_stay_unless_the_check_is_off() -> None:
    rng = Random(3)
    base = " ".join(article("en", key) for key in "abcdefgh")
    texts = [base, *(edited(base, 0.06, rng) for _ in range(60))]
    similar = [jaccard(base, text) for text in texts[1:]]
    assert 0.45 < min(similar) < max(similar) < 0.75
    assert len(near_duplicates(texts, CONFIG.model_copy(update={"min_similarity": 0.0}))) > 5
    assert near_duplicates(texts) == {}


def test_longer_bands_ask_for_more_similarity() -> None:
    rng = Random(2)
    base = " ".join(article("en", key) for key in "abcd")
    texts = [base, *(edited(base, 0.02, rng) for _ in range(20))]
    kept = {}
    for bands, rows in ((28, 2), (14, 8), (2, 56)):
        config = NearDuplicatesConfig(bands=bands, rows=rows, min_similarity=0)
        kept[rows] = len(near_duplicates(texts, config))
    assert kept[2] == 20
    assert kept[2] >= kept[8] > kept[56]


def test_equal_texts_in_two_languages_do_not_meet() -> None:
    base = " ".join(article("en", key) for key in "abcd")
    assert near_duplicates([base, base, base], languages=["en", "de", "en"]) == {2: 0}


def test_more_minima_than_the_sketch_and_fewer() -> None:
    words = words_of(article("en", "a"))
    for config in (NearDuplicatesConfig(bands=50, rows=20), NearDuplicatesConfig(bands=2, rows=3, sketch=1)):
        minima_, sketch = fingerprint(words, config)
        assert minima_.shape == (config.bands * config.rows,)
        assert minima_.dtype == np.uint32
        assert sketch.shape == (config.sketch,)
        assert np.array_equal(signature(words, config), minima_)


def test_band_keys_are_equal_where_the_bands_are() -> None:
    rng = np.random.default_rng(0)
    found = rng.integers(0, 2**32, (50, 112), dtype=np.uint32)
    found[1, 8:16] = found[0, 8:16]  # band 1 of 14
    found[2, :8] = found[0, 8:16]  # the same minima in another band are another key
    keys = band_keys(found, 14)
    assert keys.shape == (50, 14)
    assert keys[1, 1] == keys[0, 1]
    assert len(np.unique(keys)) == keys.size - 1


OCCURRENCES = st.lists(st.tuples(st.integers(0, 12), st.integers(-4, 15)), max_size=60)


@given(OCCURRENCES)
@settings(deadline=None)
def test_edges_join_each_row_to_the_first_of_every_key(occurrences: list[tuple[int, int]]) -> None:
    expected = {
        (row, first)
        for key, row in occurrences
        if row != (first := min(other for same, other in occurrences if same == key))
    }
    keys, rows = np.array(occurrences, np.int64).reshape(-1, 2).T
    found = edges(keys.astype(np.uint64) * np.uint64(2**60), rows)
    assert found.shape == (len(expected), 2)
    assert [tuple(pair) for pair in found.tolist()] == sorted(expected)


@given(OCCURRENCES)
@settings(deadline=None)
def test_groups_are_the_rows_that_keys_connect(occurrences: list[tuple[int, int]]) -> None:
    """Joining to the first of a key makes the groups that joining all rows of a key makes."""
    groups = {row: {row} for _, row in occurrences}
    for (key, one), (other_key, other) in combinations(occurrences, 2):
        if key == other_key and groups[one] is not groups[other]:
            groups[one] |= groups[other]
            for row in groups[other]:
                groups[row] = groups[one]
    keys, rows = np.array(occurrences, np.int64).reshape(-1, 2).T
    dropped, firsts = repeats(edges(keys.astype(np.uint64), rows))
    expected = {row: min(group) for row, group in groups.items() if min(group) != row}
    assert dict(zip(dropped.tolist(), firsts.tolist(), strict=True)) == expected
    assert dropped.tolist() == sorted(expected)


@given(st.lists(st.tuples(st.integers(-3, 30), st.integers(-3, 30)), max_size=40))
@settings(deadline=None)
def test_connect_finds_the_connected_groups(pairs: list[tuple[int, int]]) -> None:
    groups = {node: {node} for pair in pairs for node in pair}
    for one, other in pairs:
        if groups[one] is not groups[other]:
            groups[one] |= groups[other]
            for node in groups[other]:
                groups[node] = groups[one]
    rows, firsts = connect(np.array(pairs, np.int64).reshape(-1, 2))
    assert rows.tolist() == sorted(groups)
    assert firsts.tolist() == [min(groups[node]) for node in sorted(groups)]


def chains(count: int) -> dict[str, NDArray[np.int64]]:
    """Orders of a chain's rows, some of which are slow for methods that hand labels on step by step."""
    zigzag = np.empty(count, np.int64)
    zigzag[::2], zigzag[1::2] = np.arange(count // 2), np.arange(count - 1, count // 2 - 1, -1)
    bits = int(np.log2(count))
    reverse = np.array([int(f"{row:0{bits}b}"[::-1], 2) for row in range(2**bits)])
    shuffled = np.random.default_rng(3).permutation(count)
    return {"up": np.arange(count), "zigzag": zigzag, "bits reversed": reverse, "shuffled": shuffled}


@pytest.mark.parametrize("order", ["up", "zigzag", "bits reversed", "shuffled"])
def test_connect_settles_long_chains_in_few_rounds(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, rows = [], chains(1 << 14)[order]
    equal = np.array_equal
    monkeypatch.setattr(np, "array_equal", lambda one, other: [rounds.append(1), equal(one, other)][1])  # once a round
    found, firsts = connect(np.stack([rows[:-1], rows[1:]], axis=1))
    assert len(found) == 1 << 14
    assert not firsts.any()
    assert 1 < len(rounds) <= 2 * 14  # by the logarithm of the chain's length


def test_edges_of_one_key_that_all_share_are_linear() -> None:
    rows = np.random.default_rng(0).permutation(1_000_000)
    found = edges(np.zeros(len(rows), np.uint64), rows)
    assert found.shape == (999_999, 2)
    assert not found[:, 1].any()
