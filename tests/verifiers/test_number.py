"""Numbers in answers: what is read as one, which one counts, tolerance and units."""

from fractions import Fraction

import pytest

from herdlm.base.errors import InputError
from herdlm.verifiers.boxed import last_boxed
from herdlm.verifiers.gsm8k import extract_flexible, extract_strict, same_answer
from herdlm.verifiers.load import load_verifier
from herdlm.verifiers.number import last_number, quantities


@pytest.mark.parametrize(
    "text, value",
    [
        ("It is 5 apples.", 5),
        ("$1,234.50", Fraction("1234.5")),
        ("3/4", Fraction(3, 4)),
        ("-1/2", Fraction(-1, 2)),
        ("1 1/2 cups", Fraction(3, 2)),
        ("2½", Fraction(5, 2)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"\dfrac34", Fraction(3, 4)),
        ("x = -5", -5),
        ("10-5", 5),
        ("\N{MINUS SIGN}7", -7),
        ("1e-3", Fraction(1, 1000)),
        (r"3 \times 10^{4}", 30000),
        ("2x10^3", 2000),
        ("1{,}000", 1000),
        ("1,2,3", 3),
        ("12/05/2024", 2024),
        (".5", Fraction(1, 2)),
        ("18.", 18),
        ("50%", 50),
        ("3/0", None),
        ("9" * 5000, None),
        ("none", None),
    ],
)
def test_the_last_number_of_a_text(text, value):
    assert last_number(text) == value


@pytest.mark.parametrize(
    "text, unit",
    [
        ("5km", "km"),
        ("5 kilometers", "km"),
        ("$5", "$"),
        ("5 dollars", "$"),
        ("5%", "%"),
        (r"12\text{ cm}", "cm"),
        ("5 m/s", "m/s"),
        ("5 apples", "apple"),
        ("5", ""),
    ],
)
def test_the_unit_beside_a_number(text, unit):
    assert [quantity.unit for quantity in quantities(text)] == [unit]


def test_a_boxed_answer_may_hold_braces_and_the_last_complete_one_counts():
    assert last_boxed(r"\boxed{1} and \boxed{\frac{1}{2}} and \boxed{3") == r"\frac{1}{2}"
    assert last_boxed("no box") is None


@pytest.mark.parametrize(
    "options, answer, passes",
    [
        ({}, r"So \boxed{7}, unlike 8.", True),
        ({}, "#### 7\nWhich is not 8.", True),
        ({}, "First 8, then 7", True),
        ({}, "First 7, then 8", False),
        ({}, "none", False),
        ({}, "#### $7.00 per week.\nWhich is not 8.", True),
        ({}, "#### **7**\nWhich is not 8.", True),
        ({}, "#### Step 1: add\n3 + 4 = 7\n", True),
        ({}, "#### 1. Add the two numbers\n3 + 4 = 7\n", True),
        ({}, "#### Answer\n7", True),
        ({"take": "last"}, r"So \boxed{7}, unlike 8.", False),
        ({"take": "boxed"}, "7", False),
        ({"take": "marked"}, "7", False),
        ({"tolerance": 0.5}, "7.5", True),
        ({"tolerance": 0.5}, "7.6", False),
        ({"relative_tolerance": 0.1}, "7.7", True),
        ({"relative_tolerance": 0.1}, "7.8", False),
        ({"units": "same"}, "7", True),
        ({"units": "same"}, "7 km", False),
    ],
)
def test_verdicts_of_options(options, answer, passes):
    verdict = load_verifier("number", options)(answer, 7)
    assert (verdict.passed, verdict.score) == (passes, float(passes))


def test_a_reference_may_be_a_text_that_ends_with_the_number():
    number = load_verifier("number")
    assert number("It is 18.", "9 * 2 = 18\n#### 18").passed
    assert number("It is 1/3.", r"\boxed{\frac{1}{3}}").passed
    assert number("0.1", 0.1).passed
    assert load_verifier("number", {"units": "same"})("It is 7 kilometers", "7 km").passed


@pytest.mark.parametrize("boxed", ["7", "x = 7", r"7~\text{cows}", r"\$7.00", r"\frac{14}{2}", r"7^\circ"])
def test_a_box_may_hold_a_number_with_its_unit(boxed):
    assert load_verifier("number")(rf"Hence \boxed{{{boxed}}}", 7).passed


@pytest.mark.parametrize("boxed", [r"\sqrt{7}", "7x", "2^7", r"7\pi", "7π", "(3, 7)", "7!", "0+7", r"\text{none}"])
def test_a_box_that_holds_more_than_a_number_has_none(boxed):
    assert load_verifier("number")(rf"Hence \boxed{{{boxed}}}", 7).reason == "no number"


@pytest.mark.parametrize("reference", [None, True, "none", [7], float("inf"), float("nan")])
def test_a_reference_that_is_no_number_is_refused(reference):
    with pytest.raises(InputError, match="is not a number"):
        load_verifier("number")("7", reference)


def test_details_show_huge_numbers_without_an_error():
    verdict = load_verifier("number")("9" * 400 + ".5", 1)
    assert not verdict.passed
    assert str(verdict.details["found"]).endswith("/2")


# What the filters of the lm-evaluation-harness 0.4.13 (task gsm8k, version 3) and its exact_match gave.
@pytest.mark.parametrize(
    "answer, strict, flexible",
    [
        ("so\n#### 18", "18", "18"),
        ("#### 18\n#### 7", "18", "7"),
        ("#### -1,234.00 dollars, not 3.", "-1,234.00", "3."),
        ("It costs $18.", "[invalid]", "$18."),
        ("####18", "[invalid]", "18"),
        ("It is 5 ... well", "[invalid]", "..."),
        ("x = -7", "[invalid]", "-7"),
        ("none", "[invalid]", "[invalid]"),
    ],
)
def test_extractions_of_gsm8k_are_those_of_the_harness(answer, strict, flexible):
    assert (extract_strict(answer), extract_flexible(answer)) == (strict, flexible)


@pytest.mark.parametrize(
    "extracted, reference, same",
    [
        ("$1,234.", "so much\n#### 1,234", True),
        ("18.0", "#### 18", False),
        ("3.", "3", True),
        ("[invalid]", "#### 3", False),
    ],
)
def test_comparisons_of_gsm8k_are_those_of_the_harness(extracted, reference, same):
    assert same_answer(extracted, reference) is same
