"""The gate on held-out figures."""

import json
import math
import re

import pytest

from herdlm.base.errors import InputError
from herdlm.evaluate.promote import Figure, Rule, judge, promote, promoted_model, read_figures
from tests.warm import run

INCUMBENT = {"svamp": Figure(0.10, 0.07, 0.13), "arc": Figure(0.46, 0.42, 0.50), "loss": Figure(2.0, 1.95, 2.05)}
RULES = {"svamp": Rule(), "arc": Rule(allowed_drop=0.02), "loss": Rule(allowed_drop=0.1, better="lower")}


def changed(**figures):
    return INCUMBENT | figures


@pytest.mark.parametrize(
    ("candidate", "promoted", "reason"),
    [
        (changed(svamp=Figure(0.20, 0.16, 0.24)), True, "promoted: svamp"),
        (changed(svamp=Figure(0.20, 0.16, 0.24), arc=Figure(0.445, 0.40, 0.48)), True, "promoted"),
        (changed(svamp=Figure(0.20, 0.16, 0.24), arc=Figure(0.43, 0.40, 0.46)), False, "arc .* may drop by 0.02"),
        (changed(svamp=Figure(0.20, 0.16, 0.24), loss=Figure(2.2, 2.1, 2.3)), False, "loss"),
        (changed(svamp=Figure(0.14, 0.11, 0.17)), False, "no figure improves"),
        (changed(loss=Figure(1.8, 1.75, 1.85)), True, "promoted: loss"),
        (INCUMBENT, False, "no figure improves"),
    ],
)
def test_a_candidate_is_promoted_if_it_improves_and_nothing_drops_too_far(candidate, promoted, reason):
    verdict = judge(candidate, INCUMBENT, RULES)
    assert verdict.promoted is promoted
    assert re.search(reason, verdict.reason), verdict.reason


def test_a_figure_that_was_not_measured_is_refused():
    with pytest.raises(InputError, match="candidate has no figure 'arc'"):
        judge({"svamp": INCUMBENT["svamp"]}, INCUMBENT, RULES)
    with pytest.raises(InputError, match="no rules"):
        judge(INCUMBENT, INCUMBENT, {})


def test_the_place_keeps_its_model_until_a_better_one_comes(tmp_path):
    place = tmp_path / "best" / "promoted.json"
    models = [tmp_path / name for name in ("one", "two", "three")]
    for model in models:
        model.mkdir()
    assert promote(models[0], INCUMBENT, RULES, place).promoted
    before = place.read_bytes()
    assert not promote(models[1], changed(svamp=Figure(0.05, 0.02, 0.08)), RULES, place).promoted
    assert place.read_bytes() == before
    assert promote(models[2], changed(svamp=Figure(0.3, 0.25, 0.35)), RULES, place).promoted
    assert promoted_model(place) == models[2].resolve()
    assert list(place.parent.iterdir()) == [place]
    with pytest.raises(InputError, match="is not a model's folder"):
        promote(tmp_path / "nowhere", INCUMBENT, RULES, place)


@pytest.mark.parametrize(
    "entry", [1.0, {"value": 1.0}, {"value": "1", "low": 0, "high": 2}, {"value": 3, "low": 0, "high": 2}]
)
def test_what_is_no_figure_is_named(tmp_path, entry):
    path = tmp_path / "figures.json"
    path.write_text(json.dumps({"svamp": entry}))
    with pytest.raises(InputError, match=r"figures.json: svamp"):
        read_figures(path)


RATES = {"svamp_acc": Figure(0.10, 0.07, 0.13), "xstest_false_refusal_rate": Figure(0.024, 0.011, 0.051)}


@pytest.mark.parametrize(
    ("rate", "promoted", "reason"),
    [
        (0.03, True, "promoted: svamp_acc"),
        (0.05, False, "xstest_false_refusal_rate .* may rise by 0.02"),
        (0.042, False, "xstest_false_refusal_rate 0.042 is above 0.04"),
    ],
)
def test_a_rate_may_rise_by_so_much_and_to_no_more_than_its_limit(rate, promoted, reason):
    candidate = {"svamp_acc": Figure(0.2, 0.16, 0.24), "xstest_false_refusal_rate": Figure(rate, 0.01, 0.09)}
    rules = {"svamp_acc": Rule(), "xstest_false_refusal_rate": Rule(0.02, "lower", limit=0.04)}
    verdict = judge(candidate, RATES, rules)
    assert verdict.promoted is promoted and re.search(reason, verdict.reason), verdict.reason


def test_a_limit_holds_for_the_first_model_and_is_no_improvement(tmp_path):
    rules = {"svamp_acc": Rule(), "xstest_false_refusal_rate": Rule(math.inf, "lower", limit=0.02)}
    verdict = promote(tmp_path, RATES, rules, tmp_path / "place.json")
    assert not verdict.promoted and "0.024 is above 0.02" in verdict.reason
    assert not (tmp_path / "place.json").exists()
    fewer = RATES | {"xstest_false_refusal_rate": Figure(0.0, 0.0, 0.01)}
    assert judge(fewer, RATES, rules).reason == "refused: no figure improves beyond its interval"
    least = {"svamp_acc": Rule(math.inf, limit=0.11)}
    assert judge(RATES, RATES, least).reason == "refused: svamp_acc 0.1 is below 0.11"


def results(path, *models):
    whole = {"value": 0.024, "low": 0.011, "high": 0.051}
    groups = {"homonyms": {"false_refusal_rate": whole | {"value": 0.04}}}
    tasks = {"xstest": {"n": 450, "false_refusal_rate": whole, "unknown": whole | {"low": None}, "groups": groups}}
    stored = {"models": [{"model": name, "tasks": tasks} for name in models], "evaluations": {}}
    path.write_text(json.dumps(stored))
    return path


def test_figures_of_an_evaluation_are_named_by_task_metric_and_group(tmp_path):
    found = read_figures(results(tmp_path / "results.json", "tuned"), "another")
    assert set(found) == {"xstest_false_refusal_rate", "xstest_false_refusal_rate/homonyms"}
    assert found["xstest_false_refusal_rate"] == RATES["xstest_false_refusal_rate"]
    both = results(tmp_path / "both.json", "tuned", "base")
    assert read_figures(both, "base") == found
    with pytest.raises(InputError, match=r"no model 'other'.*It has tuned, base"):
        read_figures(both, "other")


def test_the_command_takes_evaluations_and_limits(tmp_path):
    model, place = tmp_path / "tuned", tmp_path / "place.json"
    model.mkdir()
    figures = results(tmp_path / "results.json", "tuned")
    gate = ("promote", model, "--over", place, "--figures", figures, "--lower", "xstest_false_refusal_rate=0.02")
    refused = run("herdlm.cli", *gate, "--at-most", "xstest_false_refusal_rate/homonyms=0.03")
    assert refused.returncode == 1 and "xstest_false_refusal_rate/homonyms 0.04 is above 0.03" in refused.stderr
    done = run("herdlm.cli", *gate, "--at-most", "xstest_false_refusal_rate=0.03")
    assert done.returncode == 0, done.stderr
    assert json.loads(place.read_text())["figures"]["xstest_false_refusal_rate"]["value"] == 0.024
    for options, message in (
        (("--at-least", "xstest_false_refusal_rate=0"), "contradicts another option"),
        (("--at-most", "xstest_false_refusal_rate"), "is not a number"),
        (("--higher", "xstest_false_refusal_rate"), "named twice"),
    ):
        done = run("herdlm.cli", *gate, *options)
        assert done.returncode == 2 and message in done.stderr
