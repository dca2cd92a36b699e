"""Calibration, measures, and cutoffs by share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.base.errors import InputError
from herdlm.curate.classify.calibrate import ALL, calibrate, fit_platt
from herdlm.curate.grade.measures import auc, measure, measure_classes, reliability
from herdlm.curate.steps.quality.cutoffs import (
    LOW_QUALITY,
    CutoffConfig,
    QualityConfig,
    ScoreCounts,
    check_quality,
    cutoffs,
)


def drawn(slope: float, offset: float, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Margins, and labels that are good with the probability a calibration of these numbers gives."""
    draw = np.random.default_rng(seed)
    margins = draw.normal(0, 2, count)
    return margins, draw.random(count) < 1 / (1 + np.exp(-(slope * margins + offset)))


def test_a_fit_finds_the_numbers_that_labels_were_drawn_with() -> None:
    platt = fit_platt(*drawn(1.7, -0.8, 20_000))
    assert platt.slope == pytest.approx(1.7, abs=0.08) and platt.offset == pytest.approx(-0.8, abs=0.06)


def test_a_fit_is_the_most_likely_one_by_search() -> None:
    margins, good = drawn(0.6, 0.3, 60, seed=3)
    count = good.sum()
    targets = np.where(good, (count + 1) / (count + 2), 1 / (len(good) - count + 2))

    def loss(slope: float, offset: float) -> float:
        logits = slope * margins + offset
        return float((np.logaddexp(0, logits) - targets * logits).sum())

    platt = fit_platt(margins, good)
    around = [loss(platt.slope + a, platt.offset + b) for a in (-0.01, 0, 0.01) for b in (-0.01, 0, 0.01)]
    assert min(around) == pytest.approx(loss(platt.slope, platt.offset), abs=1e-9)


def test_perfectly_separated_labels_stay_finite_and_uncertain() -> None:
    margins = np.r_[np.full(20, -3.0), np.full(20, 3.0)]
    platt = fit_platt(margins, margins > 0)
    assert 0.9 < platt(np.array([3.0]))[0] < 0.99


def test_each_language_with_enough_labels_has_its_own_calibration() -> None:
    english, german = drawn(1.0, 1.5, 3000), drawn(1.0, -1.5, 3000, seed=1)
    few, backwards = drawn(1.0, 0.0, 20, seed=2), drawn(-1.0, 0.0, 300, seed=4)
    parts = {"en": english, "de": german, "fr": few, "es": backwards}
    margins = np.concatenate([m for m, _ in parts.values()])
    good = np.concatenate([g for _, g in parts.values()])
    languages = [language for language, (m, _) in parts.items() for _ in m] + ["it"] * 105
    margins, good = np.r_[margins, np.zeros(105)], np.r_[good, np.arange(105) < 4]
    fitted = calibrate(margins, good, languages, 100)
    assert set(fitted.by_language) == {ALL, "en", "de"}
    assert fitted.why_not == {"fr": "too_few_texts", "es": "slope_not_positive", "it": "too_few_of_a_kind"}
    en, de, fr, unknown = fitted(np.zeros(4), ["en", "de", "fr", "xx"])
    assert en == pytest.approx(0.82, abs=0.03) and de == pytest.approx(0.18, abs=0.03)
    assert fr == unknown == fitted.by_language[ALL](np.zeros(1))[0]


def test_labels_that_margins_do_not_follow_stop_the_training() -> None:
    margins, good = drawn(-2.0, 0.0, 500)
    with pytest.raises(InputError, match="learned nothing"):
        calibrate(margins, good, ["en"] * 500, 100)
    with pytest.raises(InputError, match="10 of each"):
        calibrate(margins, np.arange(500) < 9, ["en"] * 500, 100)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]), st.booleans()), min_size=1, max_size=30))
def test_auc_counts_the_pairs_in_the_right_order(rows: list[tuple[float, bool]]) -> None:
    good = [score for score, is_good in rows if is_good]
    bad = [score for score, is_good in rows if not is_good]
    found = auc(np.array([score for score, _ in rows]), np.array([is_good for _, is_good in rows]))
    if not good or not bad:
        assert found is None
    else:
        pairs = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
        assert found == pytest.approx(pairs / (len(good) * len(bad)))


def test_measures_of_a_small_case_by_hand() -> None:
    scores, good = np.array([0.9, 0.8, 0.55, 0.2, 1.0]), np.array([True, False, True, True, True])
    told = measure(scores, good, 0.5)
    assert (told["kept"], told["precision"], told["recall"]) == (4, 0.75, 0.75)
    assert told["brier"] == pytest.approx((0.01 + 0.64 + 0.2025 + 0.64 + 0) / 5, abs=1e-4)
    assert [(row["from"], row["texts"], row["good_share"]) for row in reliability(scores, good)] == [
        (0.2, 1, 1.0),
        (0.5, 1, 1.0),
        (0.8, 1, 0.0),
        (0.9, 2, 1.0),
    ]
    assert measure(scores, good, 0.5)["calibration_error"] == pytest.approx((0.8 + 0.45 + 0.8 + 0.1) / 5, abs=1e-4)
    assert measure(np.array([0.1]), np.array([False]), 0.5)["precision"] is None


def test_measures_of_classes_by_hand() -> None:
    told = measure_classes(["a", "a", "b", "b"], ["a", "b", "b", "c"])
    assert told["accuracy"] == 0.5
    assert told["classes"]["a"] == {"texts": 1, "precision": 0.5, "recall": 1.0}
    assert told["classes"]["c"] == {"texts": 1, "precision": None, "recall": 0.0}
    assert {(m["is"], m["said"]) for m in told["mistakes"]} == {("b", "a"), ("c", "b")}


@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["en", "de"])), min_size=1, max_size=60),
    st.sampled_from([0.01, 0.1, 0.35, 0.5, 1.0]),
    st.integers(0, 60),
)
def test_a_share_of_each_language_stays_however_shards_are_cut(
    rows: list[tuple[int, str]], share: float, cut: int
) -> None:
    scores, languages = [step / 40 for step, _ in rows], [language for _, language in rows]
    counts, second = ScoreCounts(), ScoreCounts()
    counts.add(scores[:cut], languages[:cut])
    second.add(scores[cut:], languages[cut:])
    counts.merge(second)
    cuts = cutoffs(counts, QualityConfig(keep_share=share))
    for language in set(languages):
        own = [score for score, name in zip(scores, languages, strict=True) if name == language]
        kept = [score for score in own if check_quality(score, language, cuts) is None]
        assert len(kept) >= share * len(own)  # enough, and without the worst score kept it would not be
        assert sum(score > min(kept) for score in kept) < share * len(own)


def test_a_language_may_have_limits_of_its_own() -> None:
    counts = ScoreCounts()
    counts.add([0.2, 0.6, 0.4, 0.3], ["en", "en", "de", "de"])
    cuts = cutoffs(counts, QualityConfig(min_score=0.5, languages={"de": CutoffConfig(keep_share=0.5)}))
    assert cuts == {"en": 0.5, "de": 0.4}
    assert check_quality(0.2, "en", cuts) == LOW_QUALITY and check_quality(0.4, "de", cuts) is None
