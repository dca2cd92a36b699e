"""Solutions that a teacher translates into other languages, and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.code.problems import Problem
from herdlm.align.synth.code.run_code import failure
from herdlm.align.synth.code.solve import TASK
from herdlm.align.synth.config import CodeConfig
from herdlm.align.synth.setting import Made, Setting, dropped
from herdlm.base.errors import InputError
from herdlm.verifiers.blocks import last_block

TRANSLATE = "Translate this {source} code to {target}. Keep the names.\n\n```{mark}\n{code}\n```"
LANGUAGES = {
    "javascript": ("JavaScript", "node", "new (require('vm').Script)({text});"),
    "bash": ("Bash", "bash", "set -n\n{code}"),
}
"""Languages into which code is translated: name, the program that parses it, and what that is given."""


def translated(setting: Setting, options: CodeConfig, problems: Sequence[Problem]) -> Iterator[Made]:
    """Solutions in other languages, which are parsed, and back in Python, where they must pass the tests again.

    Raises:
        InputError: a language is unknown, or there is no program here that parses it.
    """
    name = setting.need_teacher("translate").name
    for language in options.translate:
        target, program, _ = LANGUAGES[language]
        if shutil.which(program) is None:
            raise InputError(f"{setting.name}.translate: {language} needs {program}", "Install it, or remove it")
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
    _, program, form = LANGUAGES[language]
    text = form.replace("{text}", json.dumps(code)).replace("{code}", code)
    return setting.sandbox.run(text, interpreter=program).status == "ok"
