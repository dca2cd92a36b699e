"""Figures of scores, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from herdlm.align.safety.guard_figures import area, best, curve, curve_json, figures

SCORES = [0.9, 0.8, 0.7, 0.6, 0.4, 0.2]
UNSAFE = [True, True, False, True, False, False]


def test_rates_at_a_threshold_are_those_counted_by_hand():
    found = figures(SCORES, UNSAFE, 0.65)
    assert found["precision"].value == pytest.approx(2 / 3)
    assert found["recall"].value == pytest.approx(2 / 3)
    assert found["false_positive_rate"].value == pytest.approx(1 / 3)
    assert found["f1"].value == pytest.approx(2 / 3)
    assert found["auc"].value == pytest.approx(8 / 9)
    assert all(each.low <= each.value <= each.high for each in found.values())
    assert found["recall"].low < 0.3  # three turns show little


def test_the_area_is_the_chance_that_the_unsafe_scores_higher():
    rng = np.random.default_rng(0)
    unsafe = rng.random(80) < 0.4
    scores = np.round(rng.random(80) + 0.3 * unsafe, 1)  # with ties
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[unsafe] for b in scores[~unsafe]]
    assert area(scores, unsafe) == pytest.approx(np.mean(pairs))


def test_the_interval_of_the_area_covers_the_truth():
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        unsafe = np.arange(120) < 60
        scores = rng.normal(size=120) + 1.0 * unsafe  # the area is 0.7602
        interval = figures(scores.tolist(), unsafe.tolist(), 0.5)["auc"]
        covered += interval.low <= 0.7602 <= interval.high
    assert covered >= 52


def test_a_curve_has_a_point_for_each_score_and_names_the_best():
    points = curve(SCORES, UNSAFE)
    assert [point.threshold for point in points] == SCORES
    assert [point.recall for point in points] == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1, 1, 1])
    assert best(points).threshold == 0.6
    assert best(points, 0.0).threshold == 0.8
    assert best(points, 1.0).recall == 1
    assert best(curve([0.5, 0.5], [True, False]), 0.4) is None
    assert len(curve_json(curve(np.linspace(0.1, 1, 999).tolist(), [True] * 999))) <= 201


def test_what_is_not_defined_is_left_out():
    assert "recall" not in figures([0.1, 0.2], [False, False], 0.5)
    assert "auc" not in figures([0.1, 0.2], [True, True], 0.5)
    assert "precision" not in figures([0.1, 0.2], [True, False], 0.5)
