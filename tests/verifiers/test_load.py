"""Verifiers by name, their options, and functions of the user's own."""

import re
import sys

import pytest

from herdlm.base.errors import InputError
from herdlm.verifiers import detect, english, json_schema
from herdlm.verifiers.load import VERIFIERS, load_verifier
from herdlm.verifiers.verdict import Verdict, Verifier


@pytest.mark.parametrize("name", VERIFIERS)
def test_every_name_gives_a_verifier(name):
    verifier = load_verifier(name)
    assert isinstance(verifier, Verifier)
    assert type(verifier).__doc__


def test_the_name_in_files_of_prompts_is_understood():
    assert type(load_verifier("tests")) is VERIFIERS["code"]


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("digit", {}, "'digit' is unknown"),
        ("number", {"tolerances": 1}, "verifier number: unknown key tolerances. Did you mean tolerance?"),
        ("number", {"tolerance": -1}, "key tolerance = -1"),
        ("number", {"tolerance": float("nan")}, "key tolerance = nan"),
        ("number", {"take": "first"}, "key take = 'first'"),
        ("regex", {"pattern": "("}, "'(' is not a regular expression"),
        ("length", {"min": 3, "max": 2}, "min = 3 is above max = 2"),
        ("json", {"schema": []}, "key schema"),
        ("text", {"contains": "often"}, "key contains = 'often'"),
        ("code", {"workers": 0}, "key workers = 0"),
    ],
)
def test_wrong_names_and_options_are_refused_by_name(name, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load_verifier(name, options)


@pytest.mark.parametrize(
    "name, reference, package",
    [
        ("language", "en", "langdetect"),
        ("json", {"type": "integer"}, "jsonschema"),
        ("ifeval", {"instruction_id_list": ["change_case:english_capital"], "kwargs": [{}]}, "langdetect"),
        (
            "ifeval",
            {
                "instruction_id_list": ["length_constraints:number_sentences"],
                "kwargs": [{"num_sentences": 1, "relation": "at least"}],
            },
            "nltk",
        ),
    ],
)
def test_a_library_that_is_not_installed_is_named(monkeypatch, name, reference, package):
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, package, None)
    for cached in (detect._library, english._tokenizers, json_schema._validator):
        cached.cache_clear()
    with pytest.raises(InputError, match=f"needs the package {package}.*herdlm.evaluate"):
        load_verifier(name)("AN ANSWER", reference)


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_verifiers.py").write_text(
        "from herdlm.verifiers.verdict import Verdict\n"
        "def starts(answer, reference, *, mark='Yes'):\n"
        "    return answer.startswith(mark)\n"
        "def half(answer, reference):\n"
        "    return Verdict(False, 0.5, 'half right', {'reference': reference})\n"
        "def broken(answer, reference):\n"
        "    return 1 / 0\n"
        "def wrong(answer, reference):\n"
        "    return 'yes'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_a_function_of_ones_own_judges(own):
    assert load_verifier("my_verifiers:starts")("Yes.").passed
    assert not load_verifier("my_verifiers:starts", {"mark": "No"})("Yes.").passed
    assert load_verifier("my_verifiers:half")("x", 7) == Verdict(False, 0.5, "half right", {"reference": 7})


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("my_verifiers:start", {}, "Did you mean my_verifiers:starts"),
        ("my_verifierz:starts", {}, "no module my_verifierz"),
        ("my_verifiers:starts", {"marc": "No"}, "marc"),
        ("my_verifiers:broken", {}, "ZeroDivisionError"),
        ("my_verifiers:wrong", {}, "returned 'yes'"),
    ],
)
def test_what_is_wrong_with_ones_own_is_named(own, name, options, message):
    with pytest.raises(InputError, match=message):
        load_verifier(name, options)("Yes.", None)
