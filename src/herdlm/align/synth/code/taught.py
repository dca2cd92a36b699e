"""What a teacher adds: invented problems, translations, and code written again from its description."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.code.mutate import new_inputs
from herdlm.align.synth.code.problems import Problem, functions_of
from herdlm.align.synth.code.run_code import failure, outputs, tell_nothing
from herdlm.align.synth.config import CodeConfig
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.setting import REPEATED, Made, Setting, dropped
from herdlm.base.errors import InputError
from herdlm.verifiers.blocks import last_block

TASK = "code"
SOURCE = "synth: code"
SUBJECTS = (
    "lists of numbers", "strings and words", "dates and times", "matrices", "dictionaries", "sets", "prime numbers",
    "sorting", "searching", "intervals", "recursion", "parsing a small format", "counting and statistics", "money",
    "coordinates in a grid", "queues and stacks", "simple graphs", "text formatting", "bits", "games with dice or cards",
    "roman numerals and other notations", "combinations and permutations", "inventories", "schedules", "passwords",
)  # fmt: skip
LEVELS = ("easy, in a few lines", "of medium difficulty", "rather hard, with special cases")
INVENT = (
    "Invent a programming exercise about {subject}, {level}. It is solved by one Python function without input or output. "
    "Describe what the function gets and returns, and name it. Write the exercise only, in one paragraph, with the name "
    "of the function in backquotes.{example}"
)
SOLVE = "{problem}\n\nWrite the function in Python. Put the code into one block that begins with ```python."
TEST = (
    "{problem}\n\nWrite {count} tests of this function as Python assert statements, one a line, each with literal "
    "arguments and the expected result, such as assert f(1) == 2. Cover special cases. Write them in one code block."
)
CORRECT = "The tests ended with: {error}\n\nFind the mistake, and write the whole function again in one code block."
EXPLAIN = (
    "Here is a Python function:\n\n```python\n{code}\n```\n\nDescribe what it does so that someone can write it without "
    "seeing it: its name, what it gets, what it returns, and what happens in special cases. Write no code."
)
TRANSLATE = "Translate this {source} code to {target}. Keep the names.\n\n```{mark}\n{code}\n```"
LANGUAGES = {
    "javascript": ("JavaScript", "node", "new (require('vm').Script)({text});"),
    "bash": ("Bash", "bash", "set -n\n{code}"),
}
"""Languages into which code is translated: name, the program that parses it, and what that is given."""


@dataclass
class Try:
    """A solution on its way."""

    problem: str
    tests: list[str]
    entry: str
    dialog: list[dict[str, Any]]
    row: dict[str, Any]
    errors: list[str] = field(default_factory=list)


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
        listed = _asserts(answer.text, entry[1])
        if len(listed) < options.least_tests or tell_nothing(listed):
            yield dropped(row | {"tests": listed}, "too few tests")
            continue
        if not setting.is_new(text):
            yield dropped(row, REPEATED)
            continue
        tries.append(Try(text, listed, entry[1], [records.user(SOLVE.format(problem=text))], row | {"tests": listed}))
    yield from _solved(setting, options, tries, name, "solve")


def _asserts(text: str, entry: str) -> list[str]:
    """The assert statements of an answer that call a function and can be read."""
    found = []
    for line in (last_block(text) or text).splitlines():
        statement = line.strip()
        if re.match(rf"assert {re.escape(entry)}\(.*\) == \S", statement):
            try:
                compile(statement, "tests", "exec")
            except (SyntaxError, ValueError):
                continue
            found.append(statement)
    return list(dict.fromkeys(found))


def _solved(setting: Setting, options: CodeConfig, tries: list[Try], name: str, what: str) -> Iterator[Made]:
    """Ask for solutions, and again with the error, until tests pass or attempts are spent."""
    for attempt in range(options.attempts):
        if not tries:
            return
        answers = setting.ask(
            [each.dialog for each in tries],
            what,
            attempt,
            temperature=options.temperature,
            max_tokens=options.max_tokens,
        )
        left = []
        for each, (answer,) in zip(tries, answers, strict=True):
            code = last_block(answer.text)
            error = "there is no code block"
            if code is not None:
                error = failure(setting.sandbox, code, each.tests, each.entry)
            if not error and code is not None:
                yield from _kept(each, code.strip(), name)
                continue
            each.errors.append(error)
            each.dialog = [*each.dialog, records.assistant(answer.text), records.user(CORRECT.format(error=error))]
            left.append(each)
        tries = left
    for each in tries:
        yield dropped(each.row | {"errors": each.errors}, "no solution passes the tests")


def _kept(each: Try, code: str, name: str) -> Iterator[Made]:
    shown = "\n".join(each.tests[:3])
    messages = [records.user(f"{each.problem}\n\nYour code should pass these tests:\n\n{shown}")]
    made = records.prompt(messages, task=TASK, source=SOURCE, verifier="tests", tests=each.tests)
    yield made
    yield records.dialog(
        [*messages, records.assistant(f"```python\n{code}\n```")],
        task=TASK,
        source=name,
        origin=SOURCE,
        verdict="passes the tests",
        asked=made.record["id"],
        corrected=len(each.errors),
    )


def explained(setting: Setting, options: CodeConfig, snippets: Sequence[Problem]) -> Iterator[Made]:
    """Real functions that the teacher describes, and writes again from its description alone.

    What it writes must return the same on generated inputs. A snippet of a problem has inputs in its tests; of others
    the teacher is asked for calls.
    """
    name = setting.need_teacher("explain").name
    calls = _calls_for(setting, options, snippets)
    told = setting.ask(
        [[records.user(EXPLAIN.format(code=each.code))] for each in snippets],
        "explain",
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    tries = []
    for number, (each, (answer,)) in enumerate(zip(snippets, told, strict=True)):
        row = {"code": each.code, "description": answer.text}
        inputs = (
            [*calls[number], *new_inputs(Draw(setting.random("inputs", number)), calls[number])]
            if calls[number]
            else []
        )
        results = outputs(setting.sandbox, each.code, each.entry, inputs) if inputs else []
        tests = [
            f"assert {each.entry}({call}) == {result}"
            for call, result in zip(inputs, results, strict=True)
            if result is not None
        ][:12]
        text = answer.text.strip()
        if len(tests) < options.least_tests or tell_nothing(tests):
            yield dropped(row, "too few inputs on which the original can be run")
        elif answer.finish != "stop" or "```" in text or each.entry not in text:
            yield dropped(row, "the description is cut off, has code, or does not name the function")
        elif not setting.is_new(text):
            yield dropped(row, REPEATED)
        else:
            tries.append(Try(text, tests, each.entry, [records.user(SOLVE.format(problem=text))], row))
    yield from _solved(setting, options, tries, name, "write again")


def _calls_for(setting: Setting, options: CodeConfig, snippets: Sequence[Problem]) -> list[list[str]]:
    """Argument texts of calls of each snippet."""
    without = [each for each in snippets if not each.calls]
    asked = setting.ask(
        [[records.user(TEST.format(problem=f"```python\n{each.code}\n```", count=6))] for each in without],
        "calls",
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    found = {id(each): _literal_calls(answers[0].text, each) for each, answers in zip(without, asked, strict=True)}
    return [list(each.calls) or found[id(each)] for each in snippets]


def _literal_calls(text: str, snippet: Problem) -> list[str]:
    from herdlm.align.synth.code.problems import calls_in

    defined = functions_of(snippet.code)
    return [arguments for test in _asserts(text, snippet.entry) for _, arguments in calls_in(test, defined)]


def translated(setting: Setting, options: CodeConfig, problems: Sequence[Problem]) -> Iterator[Made]:
    """Solutions in other languages, which are parsed, and back in Python, where they must pass the tests again.

    Raises:
        InputError: a language is unknown, or there is no program here that parses it.
    """
    name = setting.need_teacher("translate").name
    for language in options.translate:
        target, program, _ = LANGUAGES[language]
        if shutil.which(program) is None:
            raise InputError(
                f"{setting.name}.translate: {language} needs the program {program}", "Install or remove it"
            )
        there = [
            [records.user(TRANSLATE.format(source="Python", target=target, mark="python", code=each.code))]
            for each in problems
        ]
        answers = setting.ask(there, language, temperature=options.temperature, max_tokens=options.max_tokens)
        parsed: list[tuple[Problem, list[dict[str, Any]], str]] = []
        for each, dialog, (answer,) in zip(problems, there, answers, strict=True):
            code = last_block(answer.text)
            row = {"messages": [*dialog, records.assistant(answer.text)]}
            if code is None or not _parses(setting, language, code):
                yield dropped(row, f"is not {target}" if code else "has no code")
            else:
                parsed.append((each, dialog, code.strip()))
        back = [
            [records.user(TRANSLATE.format(source=target, target="Python", mark=language, code=code))]
            for _, _, code in parsed
        ]
        answers = setting.ask(back, f"from {language}", temperature=options.temperature, max_tokens=options.max_tokens)
        for (each, dialog, code), again, (answer,) in zip(parsed, back, answers, strict=True):
            python = last_block(answer.text)
            row = {"messages": [*dialog, records.assistant(code), *again, records.assistant(answer.text)]}
            if python is None or failure(setting.sandbox, python, each.tests, each.entry):
                yield dropped(row, "does not pass the tests back in Python")
                continue
            for asked, written, mark in ((dialog, code, language), (again, python.strip(), "python")):
                yield records.dialog(
                    [*asked, records.assistant(f"```{mark}\n{written}\n```")],
                    task=TASK,
                    source=name,
                    origin=each.origin,
                    verdict="passes the tests back in Python",
                    asked=records.prompt_id(asked),
                )


def _parses(setting: Setting, language: str, code: str) -> bool:
    import json

    _, program, form = LANGUAGES[language]
    text = form.replace("{text}", json.dumps(code)).replace("{code}", code)
    return setting.sandbox.run(text, interpreter=program).status == "ok"
