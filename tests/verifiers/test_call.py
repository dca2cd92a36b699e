"""Function calls: reading them, and verdicts that equal the Berkeley leaderboard's; see published/README.md."""

import json
from collections import Counter
from pathlib import Path

import pytest

from herdlm.base.errors import InputError
from herdlm.verifiers.call import FunctionCall
from herdlm.verifiers.calls import Call, parse_calls

STORED = [json.loads(line) for line in (Path(__file__).parent / "published" / "bfcl.jsonl").open(encoding="utf-8")]
ADD = [Call("math.add", {"a": 1, "b": [2, "x"]})]
FUNCTION = {
    "name": "math.add",
    "parameters": {"type": "dict", "properties": {"a": {"type": "integer"}, "b": {"type": "float"}}, "required": ["a"]},
}
REFERENCE = {"function": [FUNCTION], "ground_truth": [{"math.add": {"a": [1], "b": [2.0, ""]}}]}


def test_all_verdicts_equal_the_published_checkers():
    verdict = FunctionCall()
    different, seen = [], Counter()
    for row in STORED:
        for one in row["answers"]:
            seen[row["id"].rpartition("_")[0], one["valid"]] += 1
            if verdict(one["answer"], row).passed != one["valid"]:
                different.append((row["id"], one))
    assert different == []
    kinds = ("simple_python", "multiple", "parallel", "irrelevance")
    assert all(seen[kind, valid] > 10 for kind in kinds for valid in (True, False)), seen


@pytest.mark.parametrize(
    "answer",
    [
        '[math.add(a=1, b=[2, "x"])]',
        'math.add(a=1, b=[2, "x"])',
        '```python\nmath.add(a=3-2, b=[2, "x"])\n```',
        '{"name": "math.add", "arguments": {"a": 1, "b": [2, "x"]}}',
        '[{"name": "math.add", "parameters": {"a": 1, "b": [2, "x"]}}]',
        '<|python_tag|>{"name": "math.add", "parameters": {"a": 1, "b": [2, "x"]}}',
        '{"type": "function", "function": {"name": "math.add", "arguments": "{\\"a\\": 1, \\"b\\": [2, \\"x\\"]}"}}',
        '[TOOL_CALLS] [{"name": "math.add", "arguments": {"a": 1, "b": [2, "x"]}}]',
        'Sure.\n<tool_call>\n{"name": "math.add", "arguments": {"a": 1, "b": [2, "x"]}}\n</tool_call>',
        'Here it is:\n```json\n{"name": "math.add", "arguments": {"a": 1, "b": [2, "x"]}}\n```',
    ],
)
def test_the_same_call_in_the_forms_that_models_write(answer):
    assert parse_calls(answer) == ADD


@pytest.mark.parametrize("between", ["; ", "\n", ", "])
def test_json_calls_one_after_the_other(between):
    answer = between.join(['{"name": "f", "parameters": {}}', '{"name": "g", "parameters": {"x": null}}'])
    assert parse_calls(answer) == [Call("f", {}), Call("g", {"x": None})]


@pytest.mark.parametrize(
    "written, value",
    [
        ("-5", -5),
        ("+5", 5),
        ("2**3 + 1", 9),
        ("(1, 'a')", (1, "a")),
        ("{'k': [True, None]}", {"k": [True, None]}),
        ("name", "name"),
        ("g(x)", "g(x)"),
        ("g(x=1)", {"g": {"x": 1}}),
    ],
)
def test_values_of_arguments(written, value):
    assert parse_calls(f"f(x={written})") == [Call("f", {"x": value})]


@pytest.mark.parametrize(
    "answer",
    [
        "I cannot help with that.",
        "",
        "[]",
        "42",
        "[1, 2]",
        '{"a": 1}',
        '<tool_call>{"name": 1}</tool_call>',
        "f(x=9**9**9)",
        "f(x=1/0)",
        "f(x=lambda: 1)",
        "f(x=__import__('os').system('true') + 1)",
        "f(" * 10_000,
        "[" * 100_000,
        "f(x=1)" + " " * 100_000,
    ],
)
def test_what_is_no_call(answer):
    assert parse_calls(answer) == []


@pytest.mark.parametrize(
    "answer, reason",
    [
        ("math.add(a=1)", "calls as expected"),
        ("math.add(a=1, b=2)", "calls as expected"),
        ("math.add(a=True)", "has a wrong type"),
        ("math.add(a=2)", "has a wrong value"),
        ("math.add(b=2.0)", "lacks a parameter"),
        ("math.add(a=1, c=2)", "has an unknown parameter"),
        ("math.sub(a=1)", "calls another function"),
        ("math_add(a=1)", "calls another function"),
        ("math.add(a=1), math.add(a=1)", "another number of calls"),
        ("No.", "calls no function"),
    ],
)
def test_reasons(answer, reason):
    verdict = FunctionCall()(answer, REFERENCE)
    assert (verdict.reason, verdict.passed) == (reason, reason == "calls as expected")


def test_names_without_dots_pass_if_asked_for():
    assert FunctionCall(underscores=True)("math_add(a=1)", REFERENCE).passed


def test_without_expected_calls_an_answer_passes_that_calls_none():
    reference = {"function": [FUNCTION], "ground_truth": []}
    assert FunctionCall()("I cannot do that.", reference).passed
    assert not FunctionCall()("math.add(a=1)", reference).passed


@pytest.mark.parametrize(
    "reference, message",
    [
        (None, "has no calls"),
        ({"function": [FUNCTION]}, "ground_truth is missing"),
        ({"function": [{}], "ground_truth": []}, "has no name"),
        ({"function": [{"name": "f"}], "ground_truth": []}, "parameters is missing"),
        ({"function": [FUNCTION], "ground_truth": [{"f": {}}]}, "does not describe"),
        ({"function": [FUNCTION], "ground_truth": [{"math.add": {"a": 1}}]}, "is not"),
    ],
)
def test_wrong_references_are_refused(reference, message):
    with pytest.raises(InputError, match=message):
        FunctionCall()("math.add(a=1)", reference)
