"""Makes dialogs under system prompts whose wishes every answer keeps, and pairs with answers that do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.setting import Made, Setting, dropped
from herdlm.align.synth.steerability.wishes import TEXTS, WISHES, Wishes, compose
from herdlm.align.synth.teacher_config import SteerabilityConfig
from herdlm.align.synth.words import unfinished
from herdlm.base.errors import InputError
from herdlm.evaluate.requests import Answer
from herdlm.verifiers.ifeval import IFEval
from herdlm.verifiers.refusals.classify import classify
from herdlm.verifiers.verdict import Verdict

TASK = "steerability"
SOURCE = "synth: steerability"
TRIES = 100
LEAST_CHARS = 20  # of an answer


@dataclass
class Talk:
    """A dialog on its way: what was said, what the user will ask, and whether an answer was found for the last."""

    wishes: Wishes
    requests: list[str]
    messages: list[dict[str, Any]] = field(default_factory=list)
    asked: str = ""
    samples: list[int] = field(default_factory=list)
    open: bool = True


def generate(setting: Setting, options: SteerabilityConfig) -> Iterator[Made]:
    """Prompts, pairs and dialogs, turn by turn. A dialog ends before the question that no answer keeps the wishes at.

    Raises:
        InputError: there is no teacher, or not so many different system prompts.
    """
    name = setting.need_teacher("keeping to a system prompt").name
    talks = [_talk(setting, options, number) for number in range(options.count)]
    verify = IFEval()
    for turn in range(options.turns):
        open_ = [talk for talk in talks if talk.open and turn < len(talk.requests)]
        for talk in open_:
            talk.messages.append(records.user(talk.requests[turn]))
        answers = setting.ask(
            [talk.messages for talk in open_],
            "turn",
            turn,
            samples=options.samples,
            temperature=options.temperature,
            max_tokens=options.max_tokens,
        )
        for talk, samples in zip(open_, answers, strict=True):
            yield from _answered(talk, samples, verify, name)
    for talk in talks:
        if len(talk.messages) > 2:
            yield records.dialog(
                talk.messages,
                task=TASK,
                source=name,
                origin=SOURCE,
                verdict="every answer keeps all wishes",
                asked=talk.asked,
                samples=talk.samples,
                wishes=list(talk.wishes.sorts),
            )


def _talk(setting: Setting, options: SteerabilityConfig, number: int) -> Talk:
    """A new system prompt with its questions. Each sort of wish leads as often as any other."""
    sorts = [sort for sort in WISHES if sort != "language" or options.languages]
    for attempt in range(TRIES):
        draw = Draw(setting.random("talk", number, attempt))
        wishes = compose(draw, options.most, options.languages, sorts[number % len(sorts)])
        requests = [draw.one(TEXTS["requests"]["first"])]
        requests += draw.some(TEXTS["requests"]["next"], draw.number(1, options.turns) - 1)
        if setting.is_new(f"{wishes.system} {requests[0]}"):
            return Talk(wishes, requests, [{"role": "system", "content": wishes.system}])
    raise InputError(f"{setting.name}: no new system prompt in {TRIES} tries after {number:,}", "Lower count")


def _answered(talk: Talk, samples: list[Answer], verify: IFEval, name: str) -> Iterator[Made]:
    """The prompt, a pair if some answers keep all wishes and some do not, and what is wrong with the others."""
    asked = list(talk.messages)
    made = records.prompt(asked, task=TASK, source=SOURCE, verifier="ifeval", **talk.wishes.reference)
    yield made
    talk.asked = talk.asked or made.record["id"]
    good: list[int] = []
    bad: list[tuple[float, int, str]] = []
    for number, answer in enumerate(samples):
        text = answer.text.strip()
        wrong = _wrong(answer)
        verdict = verify(text, talk.wishes.reference) if not wrong else Verdict(False, 0.0, wrong)
        if verdict.passed:
            good.append(number)
            continue
        if not wrong:
            bad.append((verdict.score, number, verdict.reason))
        row = {"prompt": asked, "answer": text, **talk.wishes.reference}
        yield dropped(row, wrong or f"breaks {_sort_of(talk.wishes, verdict)}")
    if not good:
        talk.open = False
        talk.messages.pop()
        return
    chosen = samples[good[0]].text.strip()
    if bad:
        score, number, reason = min(bad)
        yield records.pair(
            asked,
            chosen,
            samples[number].text.strip(),
            rating="significantly better" if score < 0.5 else "better",
            chosen_source=name,
            rejected_source=name,
            task=TASK,
            origin=SOURCE,
            verdict=f"keeps all wishes; the other {reason}",
            sample=good[0],
        )
    talk.messages.append(records.assistant(chosen))
    talk.samples.append(good[0])


def _wrong(answer: Answer) -> str:
    """What is wrong with an answer besides the wishes."""
    text = answer.text.strip()
    if unfinished(answer):
        return unfinished(answer)
    if len(text) < LEAST_CHARS:
        return "says almost nothing"
    return "" if classify(text).kind == "compliance" else "refuses"


def _sort_of(wishes: Wishes, verdict: Verdict) -> str:
    return wishes.sorts[list(verdict.details["strict"]).index(False)]
