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
