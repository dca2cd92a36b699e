"""Parts of ``herdlm plan``: serving, a whole run, a batch of policy gradient; options that do not go together."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from herdlm.base.errors import InputError
from herdlm.cli.planner import app

STEP = ["--model", "8b", "--gpus", "16", "--seq-len", "8192", "--tokens-per-step", "1048576", "--tp", "1"]
SERVE = ["--serve", "--model", "8b", "--requests-per-s", "20", "--input", "500", "--output", "200"]


def called(*arguments):
    done = CliRunner().invoke(app, ["plan", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_serving_prints_both_precisions_or_one():
    found = json.loads(called(*SERVE, "--json"))
    assert [plan["precision"] for plan in found["plans"]] == ["bf16", "fp8"]
    assert [p["precision"] for p in json.loads(called(*SERVE, "--precision", "fp8", "--json"))["plans"]] == ["fp8"]
    text = called(*SERVE)
    assert "first token, ms" in text and "20 requests/s of 500 + 200 tokens on h100" in text


def test_a_run_has_days_price_and_failures():
    found = json.loads(called(*STEP, "--tokens", "1e11", "--price", "2:3", "--co2", "0.4", "--spares", "1", "--json"))
    run = found["run"]
    assert run["days"]["low"] < run["days"]["value"] < run["days"]["high"]
    assert run["dollars"]["value"] == pytest.approx(run["paid_gpu_hours"]["value"] * 2.5)
    assert run["paid_gpu_hours"]["value"] == pytest.approx(run["days"]["value"] * 24 * (16 + 8))
    assert run["tonnes_co2"]["value"] == pytest.approx(run["megawatt_hours"]["value"] * 0.4)
    assert "effective training time" in called(*STEP, "--tokens", "1e11")
    assert "run" not in json.loads(called(*STEP, "--json"))


def test_a_batch_of_policy_gradient_has_shares():
    found = json.loads(called(*STEP, "--prompts-per-step", "64", "--input", "500", "--output", "800", "--json"))["grpo"]
    assert 0 < found["sampling_share"] < 1 and 0 < found["training_share"] < 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([*STEP, "--spares", "2"], "--spares is about a whole run"),
        ([*STEP, "--input", "5"], "--input needs --serve, or --prompts-per-step"),
        ([*STEP, "--samples", "4"], "--samples needs --serve, or --prompts-per-step"),
        ([*STEP, "--first-token", "0.2"], "--first-token needs --serve"),
        ([*SERVE, "--tp", "2"], "--tp is not about serving"),
        ([*SERVE, "--tokens", "1e9"], "--tokens is not about serving"),
        ([*SERVE, "--trace", "t.json"], "--trace is not about serving"),
        ([*SERVE, "--explain"], "--explain is not about serving"),
        (["--file", "rows.jsonl", "--tp", "8"], "--tp is not about the rows of a file"),
        (["--serve", "--model", "8b"], "serving needs its traffic"),
        ([*STEP, "--tokens", "1e11", "--price", "x"], "is no range"),
        ([*STEP, "--prompts-per-step", "4"], "a batch of samples has prompts"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, problem):
    with pytest.raises(InputError, match=problem):
        called(*arguments)
