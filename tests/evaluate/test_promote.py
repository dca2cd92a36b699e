"""The gate on held-out figures."""

import json

import pytest

from herdlm.base.errors import InputError
from herdlm.evaluate.promote import Figure, Rule, judge, promote, promoted_model, read_figures

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
    import re

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
