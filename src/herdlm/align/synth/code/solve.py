"""Solutions of a teacher: tested, and asked for again with the error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.code.run_code import failure
from herdlm.align.synth.config import CodeConfig
from herdlm.align.synth.setting import Made, Setting, dropped
from herdlm.verifiers.blocks import last_block

TASK = "code"
SOURCE = "synth: code"
SOLVE = "{problem}\n\nWrite the function in Python. Put the code into one block that begins with ```python."
TEST = (
    "{problem}\n\nWrite {count} tests of this function as Python assert statements, one a line, each with literal "
    "arguments and the expected result, such as assert f(1) == 2. Cover special cases. Write them in one code block."
)
CORRECT = "The tests ended with: {error}\n\nFind the mistake, and write the whole function again in one code block."


@dataclass
class Try:
    """A solution on its way.

    Attributes:
        entry: the function under test.
        dialog: what was said so far.
        row: what is written if it is dropped.
        errors: of each attempt.
    """

    problem: str
    tests: list[str]
    entry: str
    dialog: list[dict[str, Any]]
    row: dict[str, Any]
    errors: list[str] = field(default_factory=list)


def asserts_in(text: str, entry: str) -> list[str]:
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


def solved(setting: Setting, options: CodeConfig, tries: list[Try], *, name: str, what: str) -> Iterator[Made]:
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
