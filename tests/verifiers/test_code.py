"""Code in answers, judged by tests in the sandbox."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from herdlm.base.errors import InputError
from herdlm.verifiers.blocks import last_block
from herdlm.verifiers.load import load_verifier

RIGHT = "def double(x):\n    return 2 * x\n"
WRONG = "def double(x):\n    return x\n"
TESTS = ["assert double(2) == 4", "assert double(0) == 0"]


@pytest.fixture(scope="module")
def code():
    with load_verifier("code", {"cpu_seconds": 2, "wall_seconds": 4}) as verifier:
        yield verifier


@pytest.mark.parametrize(
    "answer, passes",
    [
        (RIGHT, True),
        (WRONG, False),
        (f"First try:\n```python\n{WRONG}```\nBetter:\n```python\n{RIGHT}```\nDone.", True),
        (f"```python\n{RIGHT}", True),
        ("", False),
        ("def double(x", False),
        ("while True: pass", False),
    ],
)
def test_answers_pass_whose_last_block_passes_the_tests(code, answer, passes):
    verdict = code(answer, TESTS)
    assert (verdict.passed, verdict.score) == (passes, float(passes))


def test_reasons_can_be_counted_and_details_tell_more(code):
    verdict = code(WRONG, "assert double(2) == 4, 'double(2)'")
    assert verdict.reason == "AssertionError"
    assert "double(2)" in verdict.details["why"]


def test_setup_stands_before_the_answer(code):
    reference = {"tests": "assert area(2.0) == pi * 4", "setup": "from math import pi", "entry_point": "area"}
    assert code("def area(r):\n    return pi * r ** 2", reference).passed


def test_helpers_of_the_setup_are_the_tasks_own(code):
    reference = {
        "tests": "assert inverse(encode(3)) == 3",
        "setup": "def encode(x):\n    return x + 1\n\ndef inverse(x):\n    '''Inverts encode.'''",
        "entry_point": "inverse",
    }
    assert code("def inverse(x):\n    return x - 1", reference).passed
    assert not code(
        "def inverse(x):\n    return 3\n\ndef encode(x):\n    return x", {**reference, "tests": "assert encode(3) == 3"}
    ).passed


def test_threads_share_a_verifier(code):
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda answer: code(answer, TESTS).passed, [RIGHT, WRONG] * 4))
    assert verdicts == [True, False] * 4


def test_a_closed_verifier_opens_again():
    verifier = load_verifier("code")
    assert verifier(RIGHT, TESTS).passed
    verifier.close()
    assert verifier(RIGHT, TESTS).passed
    verifier.close()


@pytest.mark.parametrize(
    "reference, message",
    [
        (None, "no Python code"),
        ([], "no Python code"),
        ([1], "no Python code"),
        ({"tests": " "}, "no Python code"),
        ({"tests": "assert f()", "entry_point": 1}, "not a text"),
    ],
)
def test_wrong_references_are_refused(reference, message):
    with pytest.raises(InputError, match=message):
        load_verifier("code")(RIGHT, reference)


def test_blocks_may_be_nested_in_longer_fences_and_lack_their_end():
    assert last_block("~~~\na\n~~~\n") == "a\n"
    assert last_block("````\n```\nx\n```\n````") == "```\nx\n```\n"
    assert last_block("```\na") == "a"
    assert last_block("no block, `code` only") is None
