"""The letter that an answer chooses."""

import pytest

from herdlm.base.errors import InputError
from herdlm.verifiers.choice import choice_letter
from herdlm.verifiers.load import load_verifier


@pytest.mark.parametrize(
    "answer, letter",
    [
        ("B", "B"),
        ("b", "B"),
        ("**D**", "D"),
        ("(C) because", "C"),
        ("A. Paris", "A"),
        ("The answer is (B).", "B"),
        ("The correct answer is **B) Paris**", "B"),
        ("The answer is A because of that.", "A"),
        ("A first guess was (A). Answer: C", "C"),
        ("Option C is correct", "C"),
        ("The answer is b.", "B"),
        ("answer: (c)\nDone.", "C"),
        ("The answer is not B, but C", "C"),
        (r"So \boxed{\text{C}}, not (D)", "C"),
        ("We rule out (A) and keep (B)", "B"),
        ("It must be D", "D"),
        ("A cow", None),
        ("I think so", None),
        ("answer is a dog", None),
        ("not sure", None),
        ("The DOG", None),
    ],
)
def test_the_letter_of_an_answer(answer, letter):
    assert choice_letter(answer) == letter


def test_letters_may_be_others():
    assert choice_letter("The answer is 2.", "1234") == "2"
    assert choice_letter("The answer is E.", "ABCD") is None


def test_verdicts_give_reason_and_letters():
    choice = load_verifier("choice", {"letters": "ABCD"})
    assert choice("The answer is B", "(B)").passed
    wrong = choice("The answer is C", "B")
    assert (wrong.passed, wrong.reason, wrong.details) == (False, "another choice", {"found": "C", "expected": "B"})
    assert choice("no idea", "B").reason == "no choice"


@pytest.mark.parametrize("reference", ["E", "", None, 1, ["A"]])
def test_a_reference_that_is_no_letter_is_refused(reference):
    with pytest.raises(InputError, match="none of ABCD"):
        load_verifier("choice", {"letters": "ABCD"})("A", reference)
