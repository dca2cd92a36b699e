"""A benchmark whose peer is not installed says so and measures the rest."""

import importlib
import sys
from pathlib import Path

import pytest

from tests.conftest import TEXT


@pytest.fixture
def load(monkeypatch):
    """A benchmark by name, found as when it is run as a script."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")

    def module(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return module


def test_the_tokenizer_is_measured_without_tiktoken(load, monkeypatch):
    tokenizer = load("tokenizer")
    monkeypatch.setattr(tokenizer, "version", lambda name: tokenizer.ABSENT)
    row = tokenizer.measure([TEXT] * 3, [TEXT], 300, 1)
    speeds = row["encoding, MB per CPU second"]
    assert speeds["tiktoken, one by one"] == "not installed: skipped"
    assert speeds["herdlm, one by one"] > 0
    assert row["documents to which tiktoken gives the same ids"] == "not installed: skipped"


def test_arms_without_their_library_are_missing(load):
    missing = load("versions").missing
    arms = ["herdlm", "torch compiled", "nowhere F32", "nowhere F16"]
    assert missing(arms, {"torch": "torch", "nowhere": "no-such-distribution"}) == ["nowhere F32", "nowhere F16"]


def test_the_sandbox_is_measured_against_none(load):
    sandbox = load("sandbox")
    figures = sandbox.measure(workers=1, seconds=0.1, rounds=1)
    rates = figures["runs a minute"]
    assert set(rates) >= {"no sandbox: program", "no sandbox: code with its tests"}
    assert all(rate > 0 for rate in rates.values())
    measured = {name.partition(":")[0] for name in rates}
    assert {"namespaces", "bubblewrap"} <= measured | set(figures["not measured"])


def test_the_herd_keeps_different_right_answers_and_compares_arms_on_the_same_rows(load):
    herd = load("herd")
    prompts = [{"prompt": [{"role": "user", "content": text}], "answer": "7"} for text in ("a", "b")]
    answers = [["3 + 4 = 7\nThe answer is 7.", "The answer is 8.", "The answer is 7.", "It is 7."], ["No idea."] * 2]
    kept = herd.kept_answers(prompts, answers, 2)
    assert [row["messages"][1]["content"] for row in kept] == [answers[0][0], "The answer is 7."]
    assert kept[0]["messages"][0]["content"] == "a"
    losses = {
        "teacher": {"nats": [1.0, 2.0], "weights": [2.0, 2.0]},
        "alone": {"nats": [4.0, 4.0], "weights": [2.0, 2.0]},
        "logits": {"nats": [2.0, 3.0], "weights": [2.0, 2.0]},
    }
    right = {"teacher": [True, True], "alone": [False, False], "logits": [True, False]}
    made = herd.figures(losses, right, "alone")
    assert made["logits"]["loss_difference"]["value"] == pytest.approx(-0.75)
    assert made["logits"]["right_difference"]["value"] == 0.5
    assert set(made["alone"]) == set(made["teacher"]) == {"loss", "right"}
