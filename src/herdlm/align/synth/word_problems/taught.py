"""Has a teacher reword and solve given problems, and keeps what agrees with their answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.config import WordProblemsConfig
from herdlm.align.synth.setting import REPEATED, Made, Setting, dropped
from herdlm.align.synth.word_problems.check import check_worked
from herdlm.base.errors import InputError
from herdlm.data.formats.problems import NUMBER
from herdlm.data.read import converted
from herdlm.data.row import RowError

TASK = "word-problems"
REWORD = (
    "Tell the following problem in other words. Keep every number and what is asked, change the wording and the order "
    "of the sentences where you can, and do not solve it. Write only the new problem.\n\n{problem}"
)
SOLVE = (
    "{problem}\n\nWrite one calculation a line, such as 12 + 5 = 17, without other words. "
    "End with a line of the form: The answer is 17."
)


@dataclass(frozen=True, slots=True)
class Given:
    """A problem with its answer, and the file it comes from; ``told`` is who told it."""

    problem: str
    answer: str
    origin: str
    told: str


def taught(setting: Setting, options: WordProblemsConfig) -> Iterator[Made]:
    """Prompts and dialogs from given problems.

    A reworded problem is kept if it has the same numbers and a solution of the teacher's gives the same answer.

    Raises:
        InputError: there is no teacher, or a file cannot be read.
    """
    teacher = setting.need_teacher("problems")
    given = list(_read(options))
    told = _reworded(setting, options, given, teacher.name)
    right: list[Given] = [each for each in given if setting.is_new(each.problem)]
    for each, found in told:
        wrong = found or ("" if setting.is_new(each.problem) else REPEATED)
        if wrong:
            yield dropped(_row(each), wrong)
        else:
            right.append(each)
    if not options.solutions:
        return
    asked = [[records.user(SOLVE.format(problem=each.problem))] for each in right]
    answers = setting.ask(
        asked, "solve", samples=options.solutions, temperature=options.temperature, max_tokens=options.max_tokens
    )
    texts = [[_tidy(answer.text) for answer in samples] for samples in answers]
    flat = [(text, each.answer) for each, samples in zip(right, texts, strict=True) for text in samples]
    verdicts = iter(check_worked(setting.sandbox, flat))
    for each, samples in zip(right, texts, strict=True):
        yield from _solved(each, samples, [next(verdicts) for _ in samples], teacher.name)


def _read(options: WordProblemsConfig) -> Iterator[Given]:
    number = 0
    for path in options.problems:
        for found in converted(path, "prompts"):
            if isinstance(found, RowError):
                raise found
            for record in found.records:
                if record.get("verifier") != "number" or "answer" not in record:
                    raise InputError(
                        f"{found.row.where()}: the problem has no number as its answer", "Give files as SVAMP or GSM8K"
                    )
                if options.limit is not None and number >= options.limit:
                    return
                number += 1
                yield Given(record["prompt"][-1]["content"], record["answer"], path.name, path.name)


def _reworded(
    setting: Setting, options: WordProblemsConfig, given: Sequence[Given], name: str
) -> list[tuple[Given, str]]:
    """New wordings, each with what is wrong with it, "" for nothing."""
    if not options.rewordings:
        return []
    answers = setting.ask(
        [[records.user(REWORD.format(problem=each.problem))] for each in given],
        "reword",
        samples=options.rewordings,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    found = []
    for each, samples in zip(given, answers, strict=True):
        for answer in samples:
            text = answer.text.strip().strip('"')
            wrong = _unlike(each.problem, text) if answer.finish == "stop" else "cut off"
            found.append((Given(text, each.answer, each.origin, name), wrong))
    return found


def _unlike(problem: str, text: str) -> str:
    """What is wrong with a new wording of a problem."""
    if "\n\n" in text or "=" in text:
        return "says more than the problem"
    if _numbers(problem) != _numbers(text):
        return "has other numbers"
    if "?" not in text and "?" in problem:
        return "asks nothing"
    return ""


def _numbers(text: str) -> Counter[str]:
    return Counter(match.replace(",", "").strip("$%.+") for match in NUMBER.findall(text))


def _tidy(text: str) -> str:
    """A solution without blank lines, and with the point after its answer that teachers forget."""
    text = re.sub(r"\n\s*\n+", "\n", text.strip())
    return text if text.endswith(".") or not re.search(r"The answer is [^\n]*\d$", text) else f"{text}."


def _solved(each: Given, samples: Sequence[str], verdicts: Sequence[str], name: str) -> Iterator[Made]:
    """The right solutions to a problem, and the problem itself if there is one or people made it."""
    messages = [records.user(each.problem)]
    rewritten = each.told == name
    source = f"synth: reworded {each.origin}" if rewritten else each.origin
    made = records.prompt(messages, task=TASK, source=source, verifier="number", answer=each.answer)
    if rewritten and all(verdicts):
        yield dropped(_row(each), "no solution of the new wording gives the answer")
        return
    if rewritten:
        yield made
    kept: set[str] = set()
    for number, (text, wrong) in enumerate(zip(samples, verdicts, strict=True)):
        if wrong or text in kept:
            yield dropped(_row(each) | {"worked": text}, wrong or REPEATED)
            continue
        kept.add(text)
        yield records.dialog(
            [*messages, records.assistant(text)],
            task=TASK,
            source=name,
            origin=source,
            verdict="steps and answer computed",
            asked=made.record["id"],
            sample=number,
        )


def _row(each: Given) -> dict[str, Any]:
    return {"prompt": [records.user(each.problem)], "answer": each.answer, "source": each.origin}
