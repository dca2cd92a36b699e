"""Problems that a teacher invents, tests and solves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.code.problems import Problem
from herdlm.align.synth.code.run_code import tell_nothing
from herdlm.align.synth.code.solve import SOLVE, TEST, Try, asserts_in, solved
from herdlm.align.synth.config import CodeConfig
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.setting import REPEATED, Made, Setting, dropped

SUBJECTS = (
    "lists of numbers",
    "strings and words",
    "dates and times",
    "matrices",
    "dictionaries",
    "sets",
    "prime numbers",
    "sorting",
    "searching",
    "intervals",
    "recursion",
    "parsing a small format",
    "counting and statistics",
    "money",
    "coordinates in a grid",
    "queues and stacks",
    "simple graphs",
    "text formatting",
    "bits",
    "games with dice or cards",
    "notations of numbers",
    "combinations and permutations",
    "inventories",
    "schedules",
    "passwords",
)
LEVELS = ("easy, in a few lines", "of medium difficulty", "rather hard, with special cases")
INVENT = (
    "Invent a programming exercise about {subject}, {level}. It is solved by one Python function without input or "
    "output. Describe what the function gets and returns, and name it. Write the exercise only, in one paragraph, with "
    "the name of the function in backquotes.{example}"
)


def invented(setting: Setting, options: CodeConfig, examples: Sequence[Problem]) -> Iterator[Made]:
    """Problems that the teacher invents, tests and solves; errors are fed back to it."""
    name = setting.need_teacher("invent").name
    dialogs = []
    for number in range(options.invent):
        draw = Draw(setting.random("invent", number))
        example = f"\n\nAn example of the style: {draw.one(examples).text}" if examples else ""
        text = INVENT.format(subject=draw.one(SUBJECTS), level=draw.one(LEVELS), example=example)
        dialogs.append([records.user(text)])
    asked = setting.ask(dialogs, "invent", temperature=options.temperature, max_tokens=options.max_tokens)
    problems = [" ".join(answers[0].text.split()) for answers in asked]
    tests = setting.ask(
        [[records.user(TEST.format(problem=text, count=6))] for text in problems],
        "test",
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    tries: list[Try] = []
    for text, (answer,) in zip(problems, tests, strict=True):
        row: dict[str, Any] = {"prompt": [records.user(text)]}
        entry = re.search(r"`([A-Za-z_]\w*)(?:\([^`]*\))?`", text)
        if entry is None or len(text.split()) < 8:
            yield dropped(row, "the problem names no function")
            continue
        listed = asserts_in(answer.text, entry[1])
        if len(listed) < options.least_tests or tell_nothing(listed):
            yield dropped(row | {"tests": listed}, "too few tests")
            continue
        if not setting.is_new(text):
            yield dropped(row, REPEATED)
            continue
        tries.append(Try(text, listed, entry[1], [records.user(SOLVE.format(problem=text))], row | {"tests": listed}))
    yield from solved(setting, options, tries, name=name, what="solve")
