"""Fits of scaling laws: known truths, published constants, files of many forms, outliers, and bad rows."""

import json

import numpy as np
import pytest

from herdlm.base.errors import InputError
from herdlm.scaling.extrapolate import forecast
from herdlm.scaling.fit import fit_file, fit_laws, summary
from herdlm.scaling.isoflop import budgets_of, fit_isoflop
from herdlm.scaling.minimize import minimize
from herdlm.scaling.page import render_fit
from herdlm.scaling.points import read_points
from herdlm.scaling.surface import fit_surface
from tests.run.conftest import herdlm
from tests.scaling.scaling_points import BESIROGLU, ERRORS, best_tokens, isoflop_rows, loss, parabola_rows, write


def fitted(tmp_path, rows, **options):
    return fit_file(write(tmp_path / "points.csv", rows), **{"draws": 40, **options})[1]


def test_the_constants_of_llama_3_come_back_from_parabolas_around_its_optimum(tmp_path):
    budgets = (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21, 1e22)
    law = fitted(tmp_path, parabola_rows(0.299, 0.537, budgets, noise=2e-4))["isoflop"]["tokens"]
    assert law["exponent"] == pytest.approx(0.537, abs=0.003)
    low, high = law["interval"]["exponent"]
    assert low < 0.537 < high and high - low < 0.02
    exact = fitted(tmp_path, parabola_rows(0.299, 0.537, budgets))["isoflop"]["tokens"]
    assert (exact["exponent"], exact["coefficient"]) == pytest.approx((0.537, 0.299), rel=1e-5)


def test_the_surface_of_the_re_analysis_of_chinchilla_comes_back_within_its_standard_errors(tmp_path):
    result = fitted(tmp_path, isoflop_rows(sizes=15, noise=0.002))["parametric"]
    for name, value in BESIROGLU.items():
        assert abs(result[name] - value) < ERRORS[name], name
        low, high = result["interval"][name]
        assert low < high


def test_without_noise_the_surface_is_exact(tmp_path):
    result = fitted(tmp_path, isoflop_rows(sizes=7))["parametric"]
    assert {name: result[name] for name in BESIROGLU} == pytest.approx(BESIROGLU, rel=0.02)


@pytest.mark.parametrize("alpha, beta", [(0.3, 0.3), (0.25, 0.5), (0.6, 0.2)])
def test_other_truths_come_back(tmp_path, alpha, beta):
    law = {
        "E": 0.6,
        "A": 40.0 * 1e9 ** (alpha - 0.28),
        "B": 160.0 * 1e10 ** (beta - 0.31),
        "alpha": alpha,
        "beta": beta,
    }
    result = fitted(tmp_path, isoflop_rows(law, sizes=9, noise=1e-4))["parametric"]
    assert (result["alpha"], result["beta"]) == pytest.approx((alpha, beta), abs=0.03)
    assert result["tokens_exponent"] == pytest.approx(alpha / (alpha + beta), abs=0.02)


def test_tokens_or_flops_are_enough_and_names_are_free(tmp_path):
    rows = isoflop_rows(sizes=7, noise=0.003)
    both = read_points(write(tmp_path / "a.csv", rows))
    tokens = read_points(write(tmp_path / "b.csv", rows, "Loss,N,D", (3, 0, 1)))
    flops = read_points(write(tmp_path / "c.csv", rows, "training_flops,validation loss,n_params", (2, 3, 0)))
    billions = [(p / 1e9, t / 1e9, c, y) for p, t, c, y in rows]
    units = read_points(write(tmp_path / "d.csv", billions, "params (B),tokens_billions,compute,loss"))
    for other in (tokens, flops, units):
        assert np.allclose(other.tokens, both.tokens) and np.allclose(other.flops, both.flops)
    (tmp_path / "e.csv").write_text(
        "﻿# made by hand\nmodel size;tokens;val_loss\n1.3B;20e9;2.5\n\n350M;7,000,000,000;3\n"
    )
    small = read_points(tmp_path / "e.csv")
    assert small.params.tolist() == [1.3e9, 350e6] and small.tokens.tolist() == [20e9, 7e9]


@pytest.mark.parametrize(
    "text, says",
    [
        ("params,tokens,loss\n1e9,x,3\n", "line 2: tokens 'x' is not a number"),
        ("params,tokens,loss\n1e9,2e10,3\n1e9,-2e10,3\n", "line 3: tokens -2e10 is not above 0"),
        ("params,tokens,loss\n1e9,2e10,nan\n", "line 2: loss 'nan' is not a number"),
        ("params,tokens,loss\n1e9,2e10\n", "line 2 has 2 cells"),
        ("params,tokens,loss\n1e9,,3\n", "line 2 has neither tokens nor flops"),
        ("params,tokens\n1e9,2e10\n", "line 2 has no loss"),
        ("a,b\n1,2\n", "none of the columns a, b is known"),
        ("", "is empty"),
        ("params,tokens,flops,loss\n1e9,2e10,1e30,3\n", "where about 6 is expected"),
    ],
)
def test_bad_rows_are_named(tmp_path, text, says):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_points(path)
    assert str(path) in str(caught.value)


def test_budgets_are_found_where_flops_lie_close_together(tmp_path):
    rows = isoflop_rows(sizes=6)
    jittered = [(p, t * f, c * f, y) for (p, t, c, y), f in zip(rows, np.linspace(0.95, 1.05, len(rows)), strict=True)]
    groups = budgets_of(read_points(write(tmp_path / "p.csv", jittered)))
    assert [len(group) for group in groups] == [6] * 9
    ratio = [(p, 20 * p, 120 * p * p, loss(BESIROGLU, p, 20 * p)) for p in np.geomspace(1e7, 1e9, 12)]
    assert budgets_of(read_points(write(tmp_path / "r.csv", ratio))) == []


def test_a_ladder_at_a_fixed_ratio_has_no_parabolas_and_says_so(tmp_path):
    rows = [(p, r * p, 6 * r * p * p, loss(BESIROGLU, p, r * p)) for p in np.geomspace(1e7, 3e9, 8) for r in (5, 23)]
    result = fitted(tmp_path, rows)
    assert result["isoflop"] is None and result["disagreement"] is None
    assert "0 budgets" in result["not_fitted"]["isoflop"]
    assert result["parametric"]["alpha"] == pytest.approx(0.3478, abs=0.03)


def test_one_budget_gives_a_surface_but_no_power_law(tmp_path):
    result = fitted(tmp_path, isoflop_rows(budgets=(1e20,), sizes=12, noise=0.002))
    assert result["isoflop"] is None and any("decades of compute" in line for line in result["warnings"])


def test_too_few_points_are_refused(tmp_path):
    with pytest.raises(InputError, match="3 points for a surface of 5 parameters"):
        fitted(tmp_path, isoflop_rows(budgets=(1e20,), sizes=3))


def test_diverged_runs_are_left_out_of_both_fits(tmp_path):
    rows = isoflop_rows(sizes=9, noise=0.002)
    clean = fitted(tmp_path, rows)
    for n in (2, 33, 60):
        rows[n] = (*rows[n][:3], rows[n][3] * 1.4)
    dirty = fitted(tmp_path, rows)
    assert len(dirty["parametric"]["left_out"]) == 3 and not clean["parametric"]["left_out"]
    for method, name in (("parametric", "alpha"), ("parametric", "E")):
        assert dirty[method][name] == pytest.approx(clean[method][name], rel=0.05)
    assert dirty["isoflop"]["tokens"]["exponent"] == pytest.approx(clean["isoflop"]["tokens"]["exponent"], abs=0.02)
    kept = fitted(tmp_path, rows, keep_all=True)
    assert not kept["parametric"]["left_out"]


def test_the_bias_of_parabolas_is_foretold(tmp_path):
    """Sizes sampled at three times the optimum: parabolas err, and the forecast of their error is right."""
    law = BESIROGLU | {"alpha": 0.5, "A": 482.01 * 1e9**0.15}
    laws = fit_laws(read_points(write(tmp_path / "p.csv", isoflop_rows(law, shift=1.1, noise=1e-4))), draws=40)
    result = summary(laws)
    flops = 3e21
    truly = float(laws.isoflop.tokens(flops)[0] / best_tokens(law, flops) - 1)
    told = result["isoflop"]["bias"]["optimum"][0]
    assert told["flops"] == pytest.approx(flops) and told["tokens"] == pytest.approx(truly, abs=0.1)
    assert any("not sampled around their minimum" in line for line in result["warnings"])


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """12 ladders with noise: the forecast far ahead lies in the interval in nearly all."""
    from herdlm.scaling.points import make_points

    flops = 3e23
    truth = best_tokens(BESIROGLU, flops)
    inside = 0
    for seed in range(12):
        rows = isoflop_rows(budgets=(1e19, 3e19, 1e20, 3e20, 1e21), sizes=7, noise=0.004, seed=seed)
        names = ("params", "tokens", "flops", "loss")
        points = make_points(
            [dict(zip(names, row, strict=True)) for row in rows], dict(zip(names, names, strict=True)), "x"
        )
        fit = fit_surface(points, draws=25, seed=seed)
        low, high = np.quantile(fit.draws.optimum(flops, 6.0)[1], (0.025, 0.975))
        inside += low <= truth <= high
    assert inside >= 9


def test_equal_seeds_give_equal_results_and_the_page_shows_them(tmp_path):
    path = write(tmp_path / "points.csv", isoflop_rows(sizes=6, noise=0.003))
    laws, result = fit_file(path, draws=40)
    assert json.dumps(result) == json.dumps(fit_file(path, draws=40)[1])
    page = render_fit(laws, result)
    for text in (
        "Curves of equal compute",
        "Optimal tokens by compute",
        "What decides",
        f"{result['parametric']['E']:.4g}",
    ):
        assert text in page


def test_what_decides_names_each_budget(tmp_path):
    rows = fitted(tmp_path, isoflop_rows(sizes=7, noise=0.002))["decides"]
    assert sum("the budget of" in row["without"] for row in rows) == 9
    assert {"isoflop", "parametric"} <= rows[0].keys()


def test_where_reads_a_part(tmp_path):
    path = tmp_path / "p.csv"
    lines = [f"{p},{t},{y},{kind}" for kind in ("a", "b") for p, t, _, y in isoflop_rows(sizes=5)]
    path.write_text("params,tokens,loss,kind\n" + "\n".join(lines))
    assert len(read_points(path, ["kind=a"])) == 45 and len(read_points(path)) == 90
    with pytest.raises(InputError, match="names no column"):
        read_points(path, ["color=a"])


def test_minimize_finds_minima_of_many_functions_at_once():
    targets = np.array([[1.0, 2.0], [-3.0, 0.5], [10.0, -4.0]])

    def objective(x, numbers):
        d = x - targets[numbers]
        return (d[:, 0] ** 2 * 50 + d[:, 1] ** 4 + d[:, 1] ** 2), np.stack(
            [100 * d[:, 0], 4 * d[:, 1] ** 3 + 2 * d[:, 1]], 1
        )

    found, values = minimize(objective, np.zeros((3, 2)))
    assert found == pytest.approx(targets, abs=1e-4) and values.max() < 1e-8


def test_the_forecast_chooses_parabolas_where_the_surface_is_wrong(tmp_path):
    """Losses that are parabolas with a straight line of minima are no surface of this form."""
    laws = fit_laws(read_points(write(tmp_path / "p.csv", parabola_rows(0.299, 0.537, noise=1e-4))), draws=40)
    found = forecast(laws, 3e23)
    assert found["methods"]["isoflop"]["tokens"]["value"] == pytest.approx(0.299 * 3e23**0.537, rel=0.05)
    assert found["tokens"]["low"] <= 0.299 * 3e23**0.537 <= found["tokens"]["high"]


def test_isoflop_needs_two_budgets(tmp_path):
    with pytest.raises(InputError, match="1 budgets with a minimum"):
        fit_isoflop(read_points(write(tmp_path / "p.csv", isoflop_rows(budgets=(1e20,)))), draws=20, seed=0)


def test_the_command_prints_json_and_writes_a_page(tmp_path):
    path = write(tmp_path / "points.csv", isoflop_rows(sizes=6, noise=0.003))
    done = herdlm("scaling", "fit", path, "--draws", "20", "--json", "--page", tmp_path / "fit.html")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"isoflop", "parametric", "disagreement", "decides", "warnings"} <= result.keys()
    assert (tmp_path / "fit.html").read_text().startswith("<!DOCTYPE html>")
    again = herdlm("scaling", "fit", path, "--page", tmp_path / "fit.html", "--draws", "20")
    assert again.returncode == 2 and "exists" in again.stderr
    bad = herdlm("scaling", "fit", tmp_path / "none.csv")
    assert bad.returncode == 2 and "cannot be read" in bad.stderr
