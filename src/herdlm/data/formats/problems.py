"""Prompts whose answers can be checked, and the dialogs that follow from their solutions.

A checkable prompt has ``verifier``: "number" (compare the last number with ``answer``), "text" (compare with
``answer``), "tests" (run the Python code with each of ``tests``) or "ifeval" (check ``instruction_id_list`` with
``kwargs``), or the name that the row gives.
"""

from __future__ import annotations

import math
import re
from typing import Any

from herdlm.data.formats.equations import steps
from herdlm.data.formats.form import Form, Record, has, request
from herdlm.data.messages import assistant, text, user
from herdlm.data.row import Row, kind_of
from herdlm.data.tools import json_value

CALCULATION = re.compile(r"<<[^>]*>>")
NUMBER = re.compile(r"[-+]?\$?\d[\d,]*(?:\.\d+)?%?")
ASKED = ("prompt", "messages", "question", "problem", "query", "instruction")


def number_text(value: float) -> str:
    """A number as people write it: without a fraction of zero, with at most ten digits."""
    return str(value) if isinstance(value, int) else f"{value:.10g}" if abs(value) < 1e10 else f"{value:.0f}"


def _gsm8k_prompts(row: Row) -> list[Record]:
    answer = text(row, "answer", row.get("answer")).rpartition("####")[2].strip().replace(",", "")
    return [{"prompt": request(row, "question"), "answer": answer, "verifier": "number"}]


def _gsm8k_dialogs(row: Row) -> list[Record]:
    worked, _, answer = text(row, "answer", row.get("answer")).rpartition("####")
    lines = [CALCULATION.sub("", worked).strip(), f"The answer is {answer.strip().replace(',', '')}."]
    return [{"messages": [*request(row, "question"), assistant("\n".join(line for line in lines if line))]}]


def _word_problem(row: Row) -> tuple[str, list[float], float]:
    """SVAMP's question with its numbers filled in, the numbers, and the answer."""
    numbers = [_number(row, "numbers", part) for part in str(row.get("numbers") or "").split()]
    question = text(row, "question", row.get("question"))
    if "numbers" not in row and "body" in row:
        question = f"{text(row, 'body', row.get('body')).rstrip()} {question}"

    def fill(match: re.Match[str]) -> str:
        index = int(match[1])
        if index >= len(numbers):
            raise row.error("numbers", f"number{index} of the question is missing", "Add it")
        return number_text(numbers[index])

    filled = re.sub(r"\bnumber(\d{1,3})\b", fill, question)
    return re.sub(r"\s+([.,?!])", r"\1", filled).strip(), numbers, _number(row, "answer", row.get("answer"))


def _number(row: Row, key: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool | list | dict) else float(value)
    except (ValueError, OverflowError, TypeError):
        number = math.nan
    if not math.isfinite(number):
        raise row.error(key, f"{str(value)[:40]!r} is not a number", "Write digits")
    return number


def _svamp_prompts(row: Row) -> list[Record]:
    question, _, answer = _word_problem(row)
    return [{"prompt": [user(question)], "answer": number_text(answer), "verifier": "number"}]


def _svamp_dialogs(row: Row) -> list[Record]:
    question, numbers, answer = _word_problem(row)
    equation = text(row, "equation", row.get("equation"))
    found = steps(row, equation, numbers)
    if found is None or not math.isclose(found[1], answer, rel_tol=1e-3, abs_tol=1e-2):
        row.useless = "the equation does not give the answer"
        return []
    worked = "\n".join([*found[0], f"The answer is {number_text(answer)}."])
    return [{"messages": [user(question), assistant(worked)]}]


def _tests(row: Row) -> list[str]:
    """MBPP's tests, after the code that they need; HumanEval's check."""
    if "entry_point" in row:
        return [text(row, "test", row.get("test")), f"check({text(row, 'entry_point', row.get('entry_point'))})"]
    listed = json_value(row, "test_list", row.get("test_list"))
    if not isinstance(listed, list) or not listed:
        raise row.error("test_list", "it is not a list of tests", 'Write ["assert ..."]')
    tests = [text(row, f"test_list[{index}]", item) for index, item in enumerate(listed)]
    setup = row.get("test_setup_code") or row.get("test_imports") or ""
    setup = "\n".join(map(str, setup)) if isinstance(setup, list) else text(row, "test_setup_code", setup)
    return [setup, *tests] if setup.strip() else tests


def _program(row: Row) -> str:
    if "entry_point" in row:
        prompt = text(row, "prompt", row.get("prompt"))
        return f"Complete this Python function.\n\n```python\n{prompt.strip()}\n```"
    key = row.first("text", "prompt")
    if key is None:
        raise row.error("text", "the task has no text", "Add a key text or prompt")
    shown = "\n".join(item for item in _tests(row) if item.lstrip().startswith("assert"))
    return f"{text(row, key, row.get(key)).strip()}\n\nYour code should pass these tests:\n\n{shown}"


def _program_prompts(row: Row) -> list[Record]:
    return [{"prompt": [user(_program(row))], "tests": _tests(row), "verifier": "tests"}]


def _program_dialogs(row: Row) -> list[Record]:
    key = row.first("code", "canonical_solution")
    if key is None:
        raise row.error("code", "the task has no solution", "Add a key code")
    code = text(row, key, row.get(key)).replace("\r\n", "\n")
    if key == "canonical_solution":
        code = text(row, "prompt", row.get("prompt")) + code
    return [{"messages": [user(_program(row)), assistant(f"```python\n{code.strip()}\n```")]}]


def _tested(row: Row) -> list[Record]:
    """A prompt with programs' tests, as herdlm writes it."""
    tests = [text(row, f"tests[{index}]", item) for index, item in enumerate(row.get("tests"))]
    named = row.get("verifier")
    return [{"prompt": request(row, "prompt"), "tests": tests, "verifier": named if named else "tests"}]


def _ifeval(row: Row) -> list[Record]:
    names = json_value(row, "instruction_id_list", row.get("instruction_id_list"))
    given = json_value(row, "kwargs", row.get("kwargs"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise row.error("instruction_id_list", "it is not a list of texts", "Write a list of names")
    if not isinstance(given, list) or len(given) != len(names) or not all(isinstance(k, dict) for k in given):
        raise row.error("kwargs", "it is not a list with an object for each instruction", "Write [{}, ...]")
    kwargs = [{key: value for key, value in item.items() if value is not None} for item in given]
    prompt = request(row, "prompt")
    return [{"prompt": prompt, "instruction_id_list": names, "kwargs": kwargs, "verifier": "ifeval"}]


def _checkable(row: Row) -> list[Record]:
    """A prompt with ``answer`` or ``ground_truth``, also inside verl's ``reward_model``."""
    asked = row.first(*ASKED)
    assert asked
    key, value = "reward_model.ground_truth", None
    if isinstance(row.value.get("reward_model"), dict):
        value = row.get("reward_model").get("ground_truth")
    else:
        key = row.first("ground_truth", "answer", "expected_answer") or "answer"
        value = row.get(key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise row.error(key, f"it is {kind_of(value)}, not an answer", "Write text or a number")
    answer = value if isinstance(value, str) else number_text(value)
    named = row.get("verifier")
    default = "number" if NUMBER.fullmatch(answer.strip()) else "text"
    verifier = named if isinstance(named, str) and named else default
    return [{"prompt": request(row, asked), "answer": answer.strip(), "verifier": verifier}]


def _answered(row: Row) -> list[Record]:
    asked = row.first(*ASKED)
    key = row.first("solution", "generated_solution", "response", "answer")
    if asked is None or key is None:
        raise row.error("answer", "there is no worked answer to learn from", "Add a key answer")
    value = row.get(key)
    answer = value if isinstance(value, str) else text(row, key, value)
    return [{"messages": [*request(row, asked), assistant(answer)]}]


def _has_truth(row: Row) -> bool:
    nested = row.value.get("reward_model")
    return row.first(*ASKED) is not None and ("ground_truth" in row or isinstance(nested, dict))


GSM8K = Form(
    "worked answers (GSM8K)",
    ("question", "answer"),
    lambda row: "question" in row and "####" in str(row.value.get("answer")),
    {"prompts": _gsm8k_prompts, "dialogs": _gsm8k_dialogs},
)
SVAMP = Form(
    "equations (SVAMP)",
    ("question", "numbers", "equation", "answer"),
    has("question", "equation", "answer"),
    {"prompts": _svamp_prompts, "dialogs": _svamp_dialogs},
)
PROGRAMS = Form(
    "programs with tests (MBPP, HumanEval)",
    ("text", "code", "test_list"),
    lambda row: "test_list" in row or all(key in row for key in ("prompt", "test", "entry_point")),
    {"prompts": _program_prompts, "dialogs": _program_dialogs},
)
IFEVAL = Form(
    "instructions to check (IFEval)",
    ("prompt", "instruction_id_list", "kwargs"),
    has("prompt", "instruction_id_list", "kwargs"),
    {"prompts": _ifeval},
)
TRUTHS = Form("prompt and ground truth", ("prompt", "ground_truth"), _has_truth, {"prompts": _checkable})
TESTED = Form(
    "prompt and tests",
    ("prompt", "tests"),
    lambda row: "prompt" in row and isinstance(row.value.get("tests"), list),
    {"prompts": _tested},
)
CHECKABLE = Form(
    "prompt and answer to check",
    ("prompt", "answer"),
    lambda row: row.first(*ASKED) is not None and row.first("answer", "expected_answer") is not None,
    {"prompts": _checkable, "dialogs": _answered},
)
