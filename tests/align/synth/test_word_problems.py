"""Word problems: their arithmetic, checked from the text alone, and what a teacher adds."""

import re
from fractions import Fraction

import pytest

from herdlm.align.synth.config import WordProblemsConfig
from herdlm.align.synth.word_problems.check import check_worked
from herdlm.align.synth.word_problems.generate import FAMILIES
from herdlm.base.errors import InputError
from herdlm.base.recipe import parse
from herdlm.sandbox.sandbox import open_sandbox
from tests.align.synth.scripted import make, of_kind, reasons

STEP = re.compile(r"(\d+(?:\.\d+)?) ([-+*/]) (\d+(?:\.\d+)?) = (\d+(?:\.\d+)?)")
ZERO_TO_TWELVE = (
    "zero",
    *("one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
SMALL = {"half": 2, "third": 3, "quarter": 4, "fifth": 5, "twice": 2, "once": 2, "dozens": 12} | {
    word: number for number, word in enumerate(ZERO_TO_TWELVE)
}
UNITS = {7, 12, 24, 60, 100, 1000}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    options = WordProblemsConfig(count=400, most_steps=4)
    return make("word_problems", options, tmp_path_factory.mktemp("work"))


def story_numbers(text):
    found = {Fraction(number) for number in re.findall(r"\d+(?:\.\d+)?", text.replace(",", ""))}
    found |= {Fraction(number.rstrip("%")) / 100 for number in re.findall(r"\d+%", text)}
    return found | {Fraction(number) for word, number in SMALL.items() if re.search(rf"\b{word}\b", text.lower())}


def test_each_step_is_right_and_uses_numbers_of_the_story_or_results(made):
    dialogs = of_kind(made, "dialogs")
    assert len(dialogs) == 400
    for dialog in dialogs:
        question, answer = (message["content"] for message in dialog["messages"])
        known = story_numbers(question) | UNITS
        *lines, last = answer.split("\n")
        for line in lines:
            a, sign, b, result = STEP.fullmatch(line).groups()
            a, b, result = Fraction(a), Fraction(b), Fraction(result)
            assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign] == result, line
            assert a in known and b in known, (question, line)
            known.add(result)
        assert last == f"The answer is {line.rpartition(' = ')[2]}."


def test_prompts_have_the_dialogs_answer(made):
    answers = {prompt["id"]: prompt["answer"] for prompt in of_kind(made, "prompts")}
    assert len(answers) == 400
    for dialog in of_kind(made, "dialogs"):
        assert dialog["messages"][-1]["content"].endswith(f"The answer is {answers[dialog['lineage']['prompt']]}.")


def test_steps_are_spread_evenly_and_problems_differ(made):
    dialogs = of_kind(made, "dialogs")
    steps = [dialog["messages"][-1]["content"].count(" = ") for dialog in dialogs]
    assert [steps.count(number) for number in (1, 2, 3, 4)] == [100] * 4
    assert len({dialog["messages"][0]["content"] for dialog in dialogs}) == 400


def test_all_families_occur(made):
    structures = " ".join(dialog["lineage"]["structure"] for dialog in of_kind(made, "dialogs"))
    for word in ("gain", "share", "unknown start", "unknown change", "times", "size", "whole", "price", "rate"):
        assert word in structures
    for word in ("distance", "units", "saved", "fraction", "percent", "area", "seats", "age", "distractor"):
        assert word in structures
    assert len(FAMILIES) == 14


def test_options_bound_numbers_steps_and_distractors(tmp_path):
    options = WordProblemsConfig(count=60, least_steps=2, most_steps=2, largest=20, distractors=0.0, fractions=False)
    made = make("word_problems", options, tmp_path)
    for dialog in of_kind(made, "dialogs"):
        assert dialog["messages"][-1]["content"].count(" = ") == 2
        assert not re.search("distractor|fraction|percent", dialog["lineage"]["structure"])
    every = make("word_problems", WordProblemsConfig(count=40, distractors=1.0), tmp_path)
    assert all("distractor" in dialog["lineage"]["structure"] for dialog in of_kind(every, "dialogs"))


def test_equal_seeds_give_equal_problems(tmp_path):
    options = WordProblemsConfig(count=30)
    first, again, other = (make("word_problems", options, tmp_path, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("3 + 4 = 7\nThe answer is 7.", ""),
        ("2 * (3 + 4) = 14\nThe answer is 14.", ""),
        ("1,200 / 4 = 300\nThe answer is 300.", ""),
        ("Each has 3 x 4 = 12 apples\nThe answer is 12.", ""),
        ("10 / 3 = 3.33\nThe answer is 3.33.", ""),
        ("3 + 4 = 8\nThe answer is 7.", "a step is wrong"),
        ("3 + 4 = 7\n7 * 2 = 15\nThe answer is 7.", "a step is wrong"),
        ("apples = 7\nThe answer is 7.", "a step cannot be read"),
        ("3 / 0 = 7\nThe answer is 7.", "a step cannot be read"),
        ("3 + 4 = 7\nThe answer is 8.", "the answer is wrong"),
        ("3 + 4 = 7\nSo it is 7.", "does not end with the answer"),
        ("The answer is 7.", "has no step"),
        ("", "does not end with the answer"),
    ],
)
def test_the_sandbox_finds_what_is_wrong_with_a_worked_answer(text, wrong):
    right = {"2 * (": "14", "1,200": "300", "Each": "12", "10 / ": "3.33"}
    answer = next((number for start, number in right.items() if text.startswith(start)), "7")
    with open_sandbox(workers=1) as sandbox:
        assert check_worked(sandbox, [(text, answer)]) == [wrong]


PROBLEMS = [
    ("Tom has 3 pens and buys 4 more pens. How many pens does Tom have?", "3 + 4", 7),
    ("Ann had 9 cups. She broke 2 cups. How many cups are left?", "9 - 2", 7),
]


def write_problems(path):
    rows = ["question,numbers,equation,answer"]
    rows += [f'"{question}",,{equation},{answer}' for question, equation, answer in PROBLEMS]
    path.write_text("\n".join(rows) + "\n")
    return path


def teacher(messages, sample):
    asked = messages[-1]["content"]
    if asked.startswith("Tell the following"):
        if "Ann" in asked:
            return ["After 2 of her 9 cups broke, how many cups does Ann have?", "Ann has cups. How many?"][sample]
        return ["Tom buys 4 pens and has 3 already. How many is that?", "Tom has 3 + 4 = 7 pens, 3 and 4."][sample]
    if "After 2" in asked:
        return "9 - 3 = 6\nThe answer is 6."
    if "Ann" in asked:
        return ["9 - 2 = 7\nThe answer is 7.", "9 - 2 = 8\nThe answer is 7."][sample]
    return ["3 + 4 = 7\n\nThe answer is 7", "The answer is 7."][sample]


def test_a_teacher_rewords_and_solves_what_agrees_with_the_answers(tmp_path):
    options = WordProblemsConfig(count=0, problems=(write_problems(tmp_path / "p.csv"),), rewordings=2, solutions=2)
    made = make("word_problems", options, tmp_path / "work", teacher)
    dialogs = [(d["messages"][0]["content"], d["messages"][1]["content"]) for d in of_kind(made, "dialogs")]
    assert dialogs == [
        (PROBLEMS[0][0], "3 + 4 = 7\nThe answer is 7."),
        (PROBLEMS[1][0], "9 - 2 = 7\nThe answer is 7."),
        ("Tom buys 4 pens and has 3 already. How many is that?", "3 + 4 = 7\nThe answer is 7."),
    ]
    assert [prompt["prompt"][0]["content"] for prompt in of_kind(made, "prompts")] == [dialogs[2][0]]
    assert sorted(reasons(made)) == [
        "a step is wrong",
        "has no step",
        "has no step",
        "has other numbers",
        "no solution of the new wording gives the answer",
        "says more than the problem",
    ]
    assert {dialog["source"] for dialog in of_kind(made, "dialogs")} == {"scripted"}


def test_problems_need_a_teacher_and_answers_that_are_numbers(tmp_path):
    path = write_problems(tmp_path / "p.csv")
    with pytest.raises(InputError, match="word_problems: problems needs a teacher"):
        make("word_problems", WordProblemsConfig(count=0, problems=(path,)), tmp_path / "work")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "Who?", "answer": "me"}\n')
    with pytest.raises(InputError, match=r"bad.jsonl, line 1: .* no number"):
        make("word_problems", WordProblemsConfig(count=0, problems=(bad,)), tmp_path / "work", teacher)


def test_more_least_than_most_steps_is_refused():
    with pytest.raises(InputError, match="least_steps = 3 is more than most_steps = 2"):
        parse(WordProblemsConfig, {"least_steps": 3, "most_steps": 2}, "recipe")
