"""Hashed features and the linear classifier."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from herdlm.base.errors import DamagedError, InputError
from herdlm.curate.classify.config import ClassifierConfig
from herdlm.curate.classify.features import SLOTS, Hasher
from herdlm.curate.classify.linear import WEIGHTS, LinearClassifier, softmax, train
from tests.curate.crawls import WORDS

SMALL = ClassifierConfig(bits=12, epochs=3)
TEXTS = st.text(st.sampled_from("ab C1.\n 港は静"), max_size=60)


def sentences(language: str, count: int, seed: int = 0) -> list[str]:
    draw = Random(f"{language} {seed}")
    return [" ".join(draw.choices(WORDS[language].split(), k=30)) for _ in range(count)]


@pytest.fixture(scope="module")
def classifier() -> LinearClassifier:
    return train(sentences("en", 60) + sentences("de", 60), ["en"] * 60 + ["de"] * 60, SMALL, seed=1)


def test_features_are_words_pairs_and_triples_of_unspaced_characters() -> None:
    hasher = Hasher(20, 100)

    def buckets(text: str) -> list[list[int]]:
        return hasher([text])[0].reshape(-1, SLOTS).tolist()

    none = hasher.buckets
    (a, ab, no_triple), (b, no_pair, _) = buckets("a b")
    assert no_triple == no_pair == none and none not in (a, ab, b)
    assert buckets("b")[0] == [b, none, none]
    assert buckets("A B") == buckets("a b") != buckets("b a")
    assert buckets("in 1999") == buckets("in 2024") != buckets("in 24")
    assert [row[2] != none for row in buckets("港は静か x")] == [True, True, False, False, False]
    assert buckets("港は静か")[1][2] == buckets("は静か")[0][2]
    assert len(buckets("x " * 200)) == 100
    assert buckets("") == [[none] * SLOTS]


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_a_text_scores_the_same_alone_and_among_others(classifier: LinearClassifier, texts: list[str]) -> None:
    together = classifier.logits(texts)
    assert np.array_equal(together, np.concatenate([classifier.logits([text]) for text in texts]))


@settings(deadline=None)
@given(TEXTS)
def test_the_score_is_the_weighted_sum_that_the_docstring_gives(classifier: LinearClassifier, text: str) -> None:
    ids, _ = Hasher(SMALL.bits, SMALL.max_words)([text])
    logits, count = np.zeros(2), 0
    for bucket in ids.tolist():
        if bucket < 2**SMALL.bits:
            logits += classifier.table[bucket]
            count += 1
    expected = logits / max(count, 1) ** 0.5 + classifier.bias
    np.testing.assert_allclose(classifier.logits([text])[0], expected, atol=1e-5)
    np.testing.assert_allclose(classifier.probabilities([text]), softmax(expected[None]), atol=1e-5)


def test_it_learns_what_words_tell_and_nothing_where_they_tell_nothing(classifier: LinearClassifier) -> None:
    held_out = sentences("en", 30, seed=2) + sentences("de", 30, seed=2)
    found = classifier.probabilities(held_out)[:, classifier.labels.index("en")]
    assert found[:30].min() > 0.9 and found[30:].max() < 0.1
    blind = train(sentences("en", 200), ["x", "y"] * 100, SMALL, seed=1)
    right = blind.logits(sentences("en", 200, seed=3)).argmax(axis=1) == np.tile([0, 1], 100)
    assert 0.35 < right.mean() < 0.65


def test_training_is_the_same_for_the_same_seed_only(classifier: LinearClassifier) -> None:
    arguments = (sentences("en", 60) + sentences("de", 60), ["en"] * 60 + ["de"] * 60, SMALL)
    assert np.array_equal(train(*arguments, seed=1).table, classifier.table)
    assert not np.array_equal(train(*arguments, seed=2).table, classifier.table)


def test_a_saved_classifier_comes_back_whole_and_its_files_are_repeatable(
    classifier: LinearClassifier, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        classifier.save(tmp_path / name)
    loaded = LinearClassifier.load(tmp_path / "a")
    assert loaded.labels == ("de", "en") and np.array_equal(loaded.table, classifier.table)
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


def test_a_damaged_classifier_is_refused(classifier: LinearClassifier, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no classifier"):
        LinearClassifier.load(tmp_path)
    classifier.save(tmp_path)
    whole = load_file(tmp_path / WEIGHTS)
    for damage in (
        {"weights": np.full_like(whole["weights"], np.nan)},
        {"weights": whole["weights"][:, :1], "bias": whole["bias"][:1]},
        {"buckets": whole["buckets"] + 2**SMALL.bits},
        {"bias": np.zeros(3, np.float32)},
    ):
        save_file(whole | damage, tmp_path / WEIGHTS)
        with pytest.raises(DamagedError):
            LinearClassifier.load(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(DamagedError):
        LinearClassifier.load(tmp_path)


def test_one_kind_of_label_is_refused() -> None:
    with pytest.raises(InputError, match="all labels are 'x'"):
        train(["a", "b"], ["x", "x"], SMALL, seed=0)
