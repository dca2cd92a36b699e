"""The gate: who is promoted, who is refused and why."""

import math

import pytest

from herdlm.align.config import GateConfig
from herdlm.align.gate import Measured, choose

CONFIG = GateConfig(max_drop=0.1, max_task_drop=0.02)


def model(sums, words, **figures):
    """A model with so many tenths right in each of two tasks of 100 prompts, and figures of standard tasks."""
    right = {"sums": [i < 10 * sums for i in range(100)], "words": [i < 10 * words for i in range(100)]}
    return Measured(right, {name.replace("__", " "): value for name, value in figures.items()})


def test_the_best_of_those_that_pass_is_promoted():
    found = choose(model(2, 5), {"sft": model(4, 5), "dpo": model(6, 5), "average": model(5, 5)}, CONFIG)
    assert found.chosen == "dpo"
    assert found.gain.value == pytest.approx(0.2)
    assert found.gain.low < 0.2 < found.gain.high
    assert found.scores == {"incumbent": 0.35, "sft": 0.45, "dpo": 0.55, "average": 0.5}
    assert "promoted" in found.reason


def test_the_mean_is_over_tasks_however_many_prompts_each_has():
    small = Measured({"many": [False] * 98 + [True] * 2, "few": [True, False]}, {})
    better = Measured({"many": [False] * 98 + [True] * 2, "few": [True, True]}, {})
    found = choose(small, {"dpo": better}, GateConfig())
    assert found.gain.value == pytest.approx(0.25)
    assert not math.isnan(found.gain.low)


def test_an_equal_candidate_is_refused():
    found = choose(model(5, 5), {"dpo": model(5, 5)}, CONFIG)
    assert found.chosen is None
    assert "does not rise" in found.refused["dpo"][0]


def test_a_task_that_falls_refuses_a_better_mean():
    found = choose(model(2, 9), {"dpo": model(9, 7)}, CONFIG)
    assert found.chosen is None
    assert found.refused["dpo"] == ["words falls by 20.0 points"]


def test_a_task_of_few_prompts_may_fall_by_chance():
    incumbent = Measured({"sums": [False] * 100, "words": [True] * 9 + [False]}, {})
    candidate = Measured({"sums": [True] * 100, "words": [True] * 7 + [False] * 3}, {})
    assert choose(incumbent, {"dpo": candidate}, CONFIG).chosen == "dpo"


def test_the_next_best_is_promoted_if_the_best_is_refused():
    found = choose(model(2, 9), {"dpo": model(9, 7), "average": model(5, 9)}, CONFIG)
    assert found.chosen == "average"


def test_standard_tasks_are_compared_with_the_start_so_that_losses_do_not_add_up():
    incumbent, candidate = model(5, 5, arc__acc=0.45), model(6, 5, arc__acc=0.44)
    assert choose(incumbent, {"dpo": candidate}, CONFIG).chosen == "dpo"
    found = choose(incumbent, {"dpo": candidate}, CONFIG, start={"arc acc": 0.47})
    assert found.chosen is None
    assert found.refused["dpo"] == ["arc acc gets worse by 0.030"]


def test_a_lower_perplexity_is_better():
    incumbent = model(5, 5, text__perplexity=9.0)
    assert choose(incumbent, {"dpo": model(6, 5, text__perplexity=8.0)}, CONFIG).chosen == "dpo"
    assert choose(incumbent, {"dpo": model(6, 5, text__perplexity=9.1)}, CONFIG).chosen is None


def test_a_least_gain_can_be_asked_for():
    assert choose(model(5, 5), {"dpo": model(6, 5)}, GateConfig(min_gain=0.1)).chosen is None
    assert choose(model(5, 5), {"dpo": model(8, 5)}, GateConfig(min_gain=0.1)).chosen == "dpo"
