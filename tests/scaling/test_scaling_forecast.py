"""Forecasts: the optimum far ahead, the largest models held out, benchmarks in two steps, and budgets of clusters."""

import json

import numpy as np
import pytest

from herdlm.base.errors import InputError
from herdlm.plan.hardware import read_hardware
from herdlm.plan.money import rates_of
from herdlm.scaling.benchmarks import forecast_task, read_tasks
from herdlm.scaling.budget import Cluster, plan_budget
from herdlm.scaling.budget_text import budget_lines, render_budget
from herdlm.scaling.fit import fit_laws
from herdlm.scaling.forecast_file import forecast_file
from herdlm.scaling.points import read_points
from herdlm.scaling.shapes import shape_of_size
from herdlm.scaling.text import forecast_lines
from tests.run.conftest import herdlm
from tests.scaling.scaling_points import BESIROGLU, best_tokens, isoflop_rows, loss, write

AHEAD = 3e23


def scores(models=12, noise=0.004, seed=0):
    """(flops, nll, accuracy) with a line and a sigmoid between 0.25 and 0.95."""
    rng = np.random.default_rng(seed)
    flops = np.geomspace(1e18, 1e22, models)
    nll = likelihood(flops) + noise * rng.normal(size=models)
    return flops, nll, right(nll) + noise * rng.normal(size=models)


def likelihood(flops):
    return 2.2 - 0.2 * np.log10(flops / 1e18)


def right(nll):
    return 0.25 + 0.7 / (1 + np.exp(6 * (nll - 1.6)))


def task_file(path, rows, more=""):
    lines = [f"arc,{c!r},{n!r},{a!r},0.25" for c, n, a in zip(*(map(float, part) for part in rows), strict=True)]
    path.write_text("\n".join(["task,flops,nll,accuracy,chance", *lines]) + more + "\n")
    return path


def test_the_optimum_far_ahead_lies_in_the_interval(tmp_path):
    path = write(tmp_path / "points.csv", isoflop_rows(sizes=9, noise=0.003))
    _, result = forecast_file(path, AHEAD, draws=60)
    best = result["optimum"]
    tokens = best_tokens(BESIROGLU, AHEAD)
    truth = {"tokens": tokens, "params": AHEAD / 6 / tokens, "loss": loss(BESIROGLU, AHEAD / 6 / tokens, tokens)}
    for name, value in truth.items():
        assert best[name]["low"] <= value <= best[name]["high"], name
    assert best["loss"]["value"] == pytest.approx(truth["loss"], rel=0.01)
    assert best["held_out"]["parametric"]["loss_error"] < 0.01
    low, high = best["flat"]["tokens"]
    assert low < tokens < high
    assert any("parametric" in line for line in forecast_lines(result))


def test_benchmarks_come_back_in_two_steps(tmp_path):
    (task,) = read_tasks(task_file(tmp_path / "scores.csv", scores()))
    found = forecast_task(task, 1e23, draws=100, level=0.95, seed=0)
    truth = likelihood(1e23)
    assert found["nll"]["low"] <= truth <= found["nll"]["high"]
    assert found["accuracy"]["value"] == pytest.approx(right(truth), abs=0.03)
    assert found["nll_per_decade"] == pytest.approx(-0.2, abs=0.02)
    assert found["held_out"]["accuracy_error"] < 0.05 and len(found["held_out"]["models"]) == 3


def test_a_forecast_that_the_held_out_models_contradict_says_so(tmp_path):
    flops, nll, accuracy = scores()
    accuracy[-3:] = 0.3  # the largest models do not follow
    (task,) = read_tasks(task_file(tmp_path / "scores.csv", (flops, nll, accuracy)))
    found = forecast_task(task, 1e23, draws=60, level=0.8, seed=0)
    assert not found["held_out"]["inside"]
    assert any("do not trust" in line for line in found["warnings"])


def test_percent_and_params_with_tokens_are_read(tmp_path):
    flops, nll, accuracy = scores()
    path = tmp_path / "scores.csv"
    rows = [
        f"1e9,{c / 6e9!r},{n!r},{100 * a!r}"
        for c, n, a in zip(*map(np.ndarray.tolist, (flops, nll, accuracy)), strict=True)
    ]
    path.write_text("\n".join(["params,tokens,nll,acc", *rows]))
    (task,) = read_tasks(path)
    assert np.allclose(task.flops, flops) and np.allclose(task.accuracy, accuracy)


def test_bad_scores_are_refused(tmp_path):
    flops, nll, accuracy = scores()
    with pytest.raises(InputError, match="accuracies outside"):
        read_tasks(task_file(tmp_path / "a.csv", (flops, nll, accuracy - 1)))
    with pytest.raises(InputError, match="3 models of different compute"):
        read_tasks(task_file(tmp_path / "b.csv", (flops[:3], nll[:3], accuracy[:3])))
    with pytest.raises(InputError, match="neither a column loss nor nll"):
        forecast_file(write(tmp_path / "c.csv", [(1e9, 2e10)], "params,tokens", (0, 1)), 1e20)
    with pytest.raises(InputError, match="nan FLOPs"):
        forecast_file(write(tmp_path / "d.csv", isoflop_rows(sizes=5)), float("nan"), draws=20)


def test_the_command_forecasts_loss_and_benchmarks(tmp_path):
    points = write(tmp_path / "points.csv", isoflop_rows(sizes=5, noise=0.003))
    given = task_file(tmp_path / "scores.csv", scores())
    done = herdlm("scaling", "forecast", points, "--flops", "1e23", "--benchmarks", given, "--draws", "20", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"params", "tokens", "loss", "methods", "held_out"} <= result["optimum"].keys()
    assert [row["task"] for row in result["benchmarks"]] == ["arc"]


@pytest.mark.parametrize("params", [1e9, 8e9, 7e10, 4e11])
def test_shapes_have_the_size_that_is_asked(params):
    shape = shape_of_size(params)
    assert shape.parameters == pytest.approx(params, rel=0.12)
    assert 75 < shape.hidden / shape.layers < 180


def test_a_budget_agrees_with_itself(tmp_path):
    machine = read_hardware().machine("h100", None)
    laws = fit_laws(read_points(write(tmp_path / "p.csv", isoflop_rows(sizes=7, noise=0.003))), draws=40, level=0.8)
    (task,) = read_tasks(task_file(tmp_path / "scores.csv", scores()))
    made = {
        days: plan_budget(
            Cluster(machine, "h100", 16, days), laws=laws, tasks=[task], rates=rates_of(machine), draws=40
        )
        for days in (2.0, 8.0)
    }
    result = made[8.0]
    tokens, model = result["tokens"], result["model"]
    assert result["flops"]["value"] == pytest.approx(6 * model["parameters"] * tokens["value"])
    rate = result["step"]["tokens_per_s_per_gpu"]["value"] * 16 * 8 * 86_400
    assert tokens["value"] == pytest.approx(rate * result["risk"]["effective"]["value"], rel=0.05)
    assert result["step"]["fits"] and tokens["low"] < tokens["value"] < tokens["high"]
    truth = loss(BESIROGLU, model["parameters"], tokens["value"])
    assert result["loss"]["low"] <= truth <= result["loss"]["high"]
    assert result["loss"]["value"] < made[2.0]["loss"]["value"]
    assert result["price"]["dollars"]["value"] > made[2.0]["price"]["dollars"]["value"]
    assert result["scores"][0]["task"] == "arc"
    assert "Loss by model size" in render_budget(result, laws)
    assert any(line.startswith("price") for line in budget_lines(result))


def test_a_budget_without_points_follows_the_report(tmp_path):
    machine = read_hardware().machine("h100", None)
    result = plan_budget(Cluster(machine, "h100", 8, 3.0), rates=rates_of(machine))
    assert result["loss"] is None and result["optimum"]["tokens"] == pytest.approx(
        0.299 * result["flops"]["value"] ** 0.537
    )
    with pytest.raises(InputError, match="0 GPUs"):
        Cluster(machine, "h100", 0, 1.0)
