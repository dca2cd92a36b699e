"""The examples of docs/verifiers.md do what they say."""

import ast
import re
from pathlib import Path

import pytest

from herdlm.verifiers.load import VERIFIERS, load_verifier

PAGE = (Path(__file__).parents[2] / "docs" / "verifiers.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
EXAMPLES = re.findall(r"^(load_verifier\(.*)  # (.+)$", BLOCKS[0], re.MULTILINE)


@pytest.mark.parametrize("line, given", EXAMPLES)
def test_an_example_gives_what_stands_beside_it(line, given):
    assert eval(line, {"load_verifier": load_verifier}) == ast.literal_eval(given)


def test_every_verifier_has_an_example_and_a_row_with_its_options():
    for name, kind in VERIFIERS.items():
        assert any(line.startswith(f'load_verifier("{name}"') for line, _ in EXAMPLES), name
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
        options = {field.alias or key for key, field in kind.model_fields.items()}
        assert set(re.findall(r"`(\w+)`", row.rsplit("|", 2)[1])) == options


def test_the_function_of_ones_own_works(tmp_path, monkeypatch):
    (tmp_path / "polite_verifiers.py").write_text(BLOCKS[1])
    monkeypatch.syspath_prepend(tmp_path)
    verdict = load_verifier("polite_verifiers:polite", {"word": "thanks"})("Thanks, no.", None)
    assert (verdict.passed, round(verdict.score, 2), verdict.reason) == (True, 0.33, "polite")
