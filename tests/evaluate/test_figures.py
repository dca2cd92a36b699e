"""Intervals of evaluations, against scipy-free oracles and by simulation."""

import itertools
import math

import numpy as np
import pytest

from herdlm.evaluate.comparing import compare, group_table, table
from herdlm.evaluate.figures import difference, figure
from herdlm.evaluate.judging import pass_at_k
from herdlm.evaluate.run import TaskResult


def records(values, **more):
    return [{"id": i, "values": {"acc": value}, **more} for i, value in enumerate(values)]


def test_a_rate_has_the_reports_normal_interval():
    found = figure(records([1.0] * 60 + [0.0] * 40), "acc")
    half = 1.96 * math.sqrt(0.6 * 0.4 / 100)
    assert (found.value, found.low, found.high) == pytest.approx((0.6, 0.6 - half, 0.6 + half), abs=1e-4)


def test_a_rate_with_few_wrong_answers_has_wilsons_interval():
    found = figure(records([1.0] * 20), "acc")
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 0.8389, 1.0), abs=1e-4)


def test_the_interval_of_clusters_covers_the_truth_nineteen_times_in_twenty():
    rng, covered, narrow = np.random.default_rng(0), 0, 0
    for trial in range(200):
        rates = rng.beta(2, 2, 40)  # of clusters with five items each, whose truth is 0.5
        rows = [
            {"id": (c, i), "values": {"acc": float(rng.random() < rate)}, "cluster": c}
            for c, rate in enumerate(rates)
            for i in range(5)
        ]
        found = figure(rows, "acc", seed=trial)
        covered += found.low <= 0.5 <= found.high
        alone = figure([row | {"cluster": None} for row in rows], "acc")
        narrow += alone.low <= 0.5 <= alone.high
    assert covered >= 180
    assert narrow < covered


def test_items_with_several_values_count_each_of_them():
    rows = [{"id": 0, "values": {"acc": [1.0, 1.0, 0.0]}}, {"id": 1, "values": {"acc": [0.0]}}]
    assert figure(rows, "acc").value == pytest.approx(0.5)


def test_perplexity_is_the_exponential_of_all_nats_by_all_words():
    rows = [
        {"id": i, "values": {}, "ratios": {"word_perplexity": [n, w]}} for i, (n, w) in enumerate([(10, 4), (5, 6)])
    ]
    found = figure(rows, "word_perplexity")
    assert found.value == pytest.approx(math.exp(1.5))
    assert found.low < found.value < found.high


def test_the_difference_is_of_the_same_items_only():
    before, after = records([1.0, 0.0, 0.0]), records([1.0, 1.0, 1.0, 0.0])
    assert difference(before, after, "acc").value == pytest.approx(2 / 3)
    assert difference(before, records([]), "acc") is None


def test_the_difference_of_perplexities_pairs_texts():
    rows = [
        [{"id": i, "ratios": {"bits_per_byte": [b + shift, 10]}} for i, b in enumerate(range(5, 25))]
        for shift in (0, 1)
    ]
    found = difference(*rows, "bits_per_byte")
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))


def result(values, task="made_up"):
    rows = records(values)
    return TaskResult(task, "Made up", len(rows), {"acc": figure(rows, "acc")}, {}, rows, None, {})


def test_a_sentence_says_better_or_worse_only_where_the_interval_excludes_zero():
    low, high = [1.0] * 40 + [0.0] * 60, [1.0] * 60 + [0.0] * 40
    (better,), (worse,), (nothing,) = (
        compare([result(a)], [result(b)], ("old", "new")) for a, b in ((low, high), (high, low), (low, low))
    )
    assert (better.shown, worse.shown, nothing.shown) == ("better", "worse", "nothing")
    assert "new is better than old, +20.00 points [+" in better.sentence
    assert "a regression" in worse.sentence
    assert "no difference of new and old is shown, +0.00 points [-" in nothing.sentence


def test_a_comparison_counts_the_items_that_both_have_rated():
    rated = [{"id": i, "values": {"acc": 1.0} if i else {}} for i in range(5)]
    other = TaskResult("made_up", "Made up", 5, {"acc": figure(rated, "acc")}, {}, rated, None, {})
    (found,) = compare([result([1.0] * 4)], [other], ("old", "new"))
    assert found.n == 3


def test_a_table_has_a_column_for_each_model():
    head, row = table({"a": [result([1.0, 0.0])], "b": [result([1.0, 1.0])]})
    assert head.split() == ["task", "(items)", "metric", "a", "b"]
    assert row.startswith("made_up (2)")
    assert "50.00 [" in row
    assert "100.00 [" in row


@pytest.mark.parametrize(("samples", "right", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 4), (7, 3, 5)])
def test_pass_at_k_is_the_share_of_all_choices_of_k_samples(samples, right, k):
    outcomes = [True] * right + [False] * (samples - right)
    every = [any(chosen) for chosen in itertools.combinations(outcomes, k)]
    assert pass_at_k(samples, right, k) == pytest.approx(sum(every) / len(every))


def several(values, **more):
    return [{"id": i, "values": {"acc": value}, **more} for i, value in enumerate(values)]


def test_the_difference_of_items_with_several_values_is_that_of_their_figures():
    before, after = several([[1.0, 1.0, 1.0], [0.0]]), several([[0.0, 0.0, 0.0], [1.0]])
    found = difference(before, after, "acc")
    assert found.value == pytest.approx(figure(after, "acc").value - figure(before, "acc").value)
    assert found.value == pytest.approx(-0.5)  # the mean of the items' differences would be 0


def test_the_difference_of_clustered_items_has_the_interval_of_clusters():
    rng, covered, narrow = np.random.default_rng(0), 0, 0
    for trial in range(200):
        rows = []
        for cluster in range(30):  # the models differ by cluster, and not on average
            shift = float(rng.choice((-0.3, 0.3)))
            for i in range(8):
                pair = (float(rng.random() < 0.5), float(rng.random() < 0.5 + shift))
                rows.append([{"id": (cluster, i), "values": {"acc": each}, "cluster": cluster} for each in pair])
        before, after = map(list, zip(*rows, strict=True))
        found = difference(before, after, "acc", seed=trial)
        covered += found.low <= 0 <= found.high
        alone = difference(*([row | {"cluster": None} for row in each] for each in (before, after)), "acc")
        narrow += alone.low <= 0 <= alone.high
    assert covered >= 180
    assert narrow < covered


def test_a_rate_of_refusals_is_shown_in_percent_and_a_rise_is_a_regression():
    name = "false_refusal_rate"
    rows = [[{"id": i, "values": {name: float(i < count)}} for i in range(200)] for count in (20, 180)]
    results = [TaskResult("xstest", "XSTest", 200, {name: figure(each, name)}, {}, each, None, {}) for each in rows]
    assert "10.00 [" in table({"small": [results[0]]})[1]
    (found,) = compare([results[0]], [results[1]], ("small", "large"))
    assert found.shown == "worse" and "+80.00 points" in found.sentence


def test_groups_stand_in_a_table_of_their_own_unless_they_are_many():
    def result(groups):
        rows = [{"id": 0, "values": {"acc": 1.0}}, {"id": 1, "values": {"acc": 0.0}}]
        figures = {"acc": figure(rows, "acc")}
        return TaskResult("mine", "Mine", 2, figures, dict.fromkeys(groups, figures), rows, None, {})

    lines = group_table({"small": [result(["de, theft", "en"])], "large": [result(["en"])]})
    assert [line.split("  ")[1].strip() for line in lines] == ["group", "de, theft", "en"]
    assert lines[2].count("50.00 [") == 2 and lines[1].count("50.00 [") == 1
    assert group_table({"small": [result(map(str, range(41)))]}) == group_table({"small": [result([])]}) == []


def test_a_task_whose_items_have_no_figure_stands_in_the_table():
    unrated = TaskResult("mt_bench", "MT-Bench", 1, {}, {}, [{"id": 0, "values": {}}], None, {})
    assert table({"small": [unrated]})[1].split(maxsplit=3) == ["mt_bench", "(1)", "none", "no item has a figure"]
