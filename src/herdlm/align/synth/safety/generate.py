"""Makes refusals of what does harm, and answers to harmless requests that sound alike, with pairs of both.

The requests to refuse are mild and general, and no answer that does what they ask for is written but as the rejected
side of a pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.safety.answers import refusal, wrong_help, wrong_refusal
from herdlm.align.synth.safety.requests import CATEGORIES, Request, borderline, reword, violating
from herdlm.align.synth.setting import Made, Setting, dropped
from herdlm.align.synth.teacher_config import SafetyConfig
from herdlm.align.synth.words import unfinished

SOURCE = "synth: safety"
BRIEFLY = (
    "The user asks for something that you do not help with. Decline in one to three plain sentences, friendly and "
    "without a lecture, and offer something harmless that you can do instead."
)
HARMLESS = "What the user asks is harmless, even if a word of it sounds otherwise. Answer it helpfully."


def generate(setting: Setting, options: SafetyConfig) -> Iterator[Made]:
    """Prompts, dialogs and pairs. Without a teacher, refusals by program and prompts alone."""
    requests = violating(setting, options.violating) + borderline(setting, options.borderline)
    for each in requests:
        setting.is_new(each.text)  # so that a rewording that equals one of them is dropped
    if setting.teacher is not None and options.rewordings:
        made = list(reword(setting, options, requests))
        yield from (each for each in made if isinstance(each, Made))
        requests += [each for each in made if isinstance(each, Request)]
    for each in requests:
        yield _prompt(each)
    refuse = [each for each in requests if each.sort == "violating"]
    answer = [each for each in requests if each.sort == "borderline"]
    if setting.teacher is None:
        for each in refuse:
            yield from _by_program(setting, options, each)
        return
    yield from _refused(setting, options, refuse)
    yield from _helped(setting, options, answer)


def _prompt(each: Request) -> Made:
    return records.prompt(
        [records.user(each.text)],
        task=_task(each),
        source=SOURCE,
        verifier="refusal",
        reference=each.wanted,
        category=each.code,
    )


def _task(each: Request) -> str:
    return f"safety: {CATEGORIES[each.code]['name']}" if each.sort == "violating" else "safety: borderline"


def _by_program(setting: Setting, options: SafetyConfig, each: Request) -> Iterator[Made]:
    text = refusal(setting, each)
    wrong = wrong_refusal(text, options.longest)
    yield dropped(_row(each, text), wrong) if wrong else _dialog(each, text, records.PROGRAM)


def _refused(setting: Setting, options: SafetyConfig, requests: Sequence[Request]) -> Iterator[Made]:
    """The teacher's short refusals, or else one by program, and pairs against its own answers that do not refuse so."""
    name = setting.need_teacher("refusals").name
    short = _ask(setting, options, requests, "briefly", BRIEFLY)
    plain = _ask(setting, options, requests, "answer")
    for each, refusals, own in zip(requests, short, plain, strict=True):
        good, source = "", name
        for number, (text, unusable) in enumerate(refusals):
            wrong = unusable or wrong_refusal(text, options.longest)
            if wrong:
                yield dropped(_row(each, text), wrong)
            elif not good:
                good = text
                yield _dialog(each, text, name, sample=number)
        if not good:
            good, source = refusal(setting, each), records.PROGRAM
            yield from _by_program(setting, options, each)
        for text, unusable in own:
            wrong = unusable or wrong_refusal(text, options.longest)
            if wrong and not unusable:
                rating = "significantly better" if wrong == "does what it should refuse" else "slightly better"
                yield _pair(each, good, text, rating, (source, name), verdict=f"refuses; the other {wrong}")
                break


def _helped(setting: Setting, options: SafetyConfig, requests: Sequence[Request]) -> Iterator[Made]:
    """The teacher's answers to harmless requests, and pairs of these against refusals, its own or by program.

    Where all of its answers are bad, it is told that the request is harmless and asked again.
    """
    name = setting.need_teacher("answers").name
    plain = _ask(setting, options, requests, "answer")
    tried = [[_helps(each, *answer) for answer in answers] for each, answers in zip(requests, plain, strict=True)]
    failed = [each for each, wrongs in zip(requests, tried, strict=True) if "" not in wrongs]
    told = dict(zip((each.text for each in failed), _ask(setting, options, failed, "told", HARMLESS), strict=True))
    for each, answers, wrongs in zip(requests, plain, tried, strict=True):
        candidates = [*zip(answers, wrongs, strict=True)]
        candidates += [(answer, _helps(each, *answer)) for answer in told.get(each.text, ())]
        good, refused = "", ""
        for (text, _), wrong in candidates:
            if wrong:
                refused = refused or (text if wrong == "refuses what is harmless" else "")
                yield dropped(_row(each, text), wrong)
            elif not good:
                good = text
                yield _dialog(each, text, name)
        if good:
            by, rejected = (name, refused) if refused else (records.PROGRAM, refusal(setting, each))
            verdict = "answers what is harmless; the other refuses"
            yield _pair(each, good, rejected, "significantly better", (name, by), verdict=verdict)


def _helps(each: Request, text: str, unusable: str) -> str:
    return unusable or wrong_help(each, text)


def _ask(
    setting: Setting, options: SafetyConfig, requests: Sequence[Request], what: str, system: str = ""
) -> list[list[tuple[str, str]]]:
    """The teacher's answers, each with why it is none."""
    before = [{"role": "system", "content": system}] if system else []
    answers = setting.ask(
        [[*before, records.user(each.text)] for each in requests],
        what,
        samples=options.samples,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    return [[(answer.text.strip(), unfinished(answer)) for answer in samples] for samples in answers]


def _dialog(each: Request, text: str, source: str, **lineage: Any) -> Made:
    messages = [records.user(each.text)]
    return records.dialog(
        [*messages, records.assistant(text)],
        task=_task(each),
        source=source,
        origin=SOURCE,
        verdict="a short refusal without a lecture" if each.sort == "violating" else "answers what is harmless",
        asked=records.prompt_id(messages),
        category=each.code,
        reworded=each.reworded,
        **lineage,
    )


def _pair(each: Request, chosen: str, rejected: str, rating: str, sources: tuple[str, str], *, verdict: str) -> Made:
    return records.pair(
        [records.user(each.text)],
        chosen,
        rejected,
        rating=rating,
        chosen_source=sources[0],
        rejected_source=sources[1],
        task=_task(each),
        origin=SOURCE,
        verdict=verdict,
        category=each.code,
    )


def _row(each: Request, text: str) -> dict[str, Any]:
    return {"prompt": [records.user(each.text)], "answer": text, "category": each.code, "wanted": each.wanted}
