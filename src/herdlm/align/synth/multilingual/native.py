"""Requests that a teacher makes up in a language, and answers there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.languages import NAMES, SUBJECTS
from herdlm.align.synth.setting import REPEATED, Made, Setting, dropped
from herdlm.align.synth.teacher_config import MultilingualConfig
from herdlm.align.synth.words import TELLING, alike, tidy, unfinished
from herdlm.evaluate.requests import Answer
from herdlm.verifiers.language import Language
from herdlm.verifiers.refusals.classify import classify

TASK = "multilingual"
SOURCE = "synth: native requests"
INVENT = (
    "Invent one request that a person who speaks {language} would make of a helpful assistant at home, about "
    "{subject}. It must be clear without files, pictures or links, and need no translation. Write only the request, "
    "in {language}."
)
LEAST_CHARS = 12
MOST_CHARS = 600
ECHO = 0.8  # share of words from which an answer repeats the request


def native(setting: Setting, options: MultilingualConfig) -> Iterator[Made]:
    """Prompts and dialogs in each language, of which the request and the answer are."""
    name = setting.need_teacher("native requests").name
    wanted = [(code, number) for code in options.languages for number in range(options.native)]
    dialogs = []
    for code, number in wanted:
        subject = Draw(setting.random("subject", code, number)).one(SUBJECTS)
        dialogs.append([records.user(INVENT.format(language=NAMES[code], subject=subject))])
    invented = _different(setting, options, dialogs)
    asked: list[tuple[str, str]] = []
    for (code, _), answer in zip(wanted, invented, strict=True):
        text = tidy(answer.text)
        wrong = unfinished(answer) or _wrong_request(code, text)
        if not wrong and not setting.is_new(text):
            wrong = REPEATED
        if wrong:
            yield dropped({"prompt": [records.user(text)], "language": code}, wrong)
        else:
            asked.append((code, text))
    answers = setting.ask(
        [[records.user(text)] for _, text in asked],
        "answer",
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    for (code, text), (answer,) in zip(asked, answers, strict=True):
        messages, said = [records.user(text)], answer.text.strip()
        wrong = unfinished(answer) or _wrong_answer(code, text, said)
        if wrong:
            yield dropped({"prompt": messages, "language": code, "answer": said}, wrong)
            continue
        made = records.prompt(messages, task=TASK, source=SOURCE, verifier="language", reference=code)
        yield made
        yield records.dialog(
            [*messages, records.assistant(said)],
            task=TASK,
            source=name,
            origin=SOURCE,
            verdict="request and answer are in the language",
            asked=made.record["id"],
            language=code,
        )


def _different(
    setting: Setting, options: MultilingualConfig, dialogs: Sequence[Sequence[dict[str, Any]]]
) -> list[Answer]:
    """The teacher's requests: equal questions are asked as samples of one, since equal requests get equal answers."""
    places: dict[str, list[int]] = {}
    for number, dialog in enumerate(dialogs):
        places.setdefault(dialog[0]["content"], []).append(number)
    samples = max(map(len, places.values()), default=1)
    answers = setting.ask(
        [[records.user(text)] for text in places],
        "invent",
        samples=samples,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    found: dict[int, Answer] = {}
    for numbers, drawn in zip(places.values(), answers, strict=True):
        found.update(zip(numbers, drawn, strict=False))
    return [found[number] for number in range(len(dialogs))]


def _wrong_request(code: str, text: str) -> str:
    if not LEAST_CHARS <= len(text) <= MOST_CHARS:
        return "the request is too short or too long"
    if re.search(r"https?://|\[[^\]]+\]", text):
        return "the request has links or placeholders"
    return "" if Language(language=code)(text).passed else "the request is in another language"


def _wrong_answer(code: str, request: str, text: str) -> str:
    if classify(text).kind != "compliance":
        return "refuses"
    if alike(request, text) >= ECHO:
        return "repeats the request"
    if len(text) >= TELLING and not Language(language=code)(text).passed:
        return "the answer is in another language"
    return "" if len(text) >= LEAST_CHARS else "says almost nothing"
