"""Judges whether answers are right: by verifiers and, of answers in other words, by the teacher in both orders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from herdlm.align.synth import records
from herdlm.align.synth.passages import Asked
from herdlm.align.synth.setting import Setting
from herdlm.align.synth.teacher_config import FactualityConfig
from herdlm.verifiers.number import Number, last_number
from herdlm.verifiers.refusals.classify import classify

Sort = Literal["right", "wrong", "unknown", "undecided", "empty"]
Verdicts = Sequence[Sort]
SAME = (
    "Question: {question}\nFirst answer: {first}\nSecond answer: {second}\n\n"
    "Do both answers say the same in reply to the question? Details that only one gives do no harm if they do not "
    "contradict the other. Reply with one word, yes or no."
)
YES, NO = re.compile(r"\A\W*yes\b", re.IGNORECASE), re.compile(r"\A\W*no\b", re.IGNORECASE)
A_NUMBER = re.compile(r"\A[-+]?[$\u20ac\u00a3]?\d[\d.,]*%?\Z")


def judged(
    setting: Setting,
    options: FactualityConfig,
    asked: Sequence[Asked],
    texts: Sequence[Sequence[str]],
    unknown: re.Pattern[str],
) -> list[list[Sort]]:
    """What each answer to each question is. Answers that verifiers cannot decide are wrong unless a judge is asked.

    Args:
        unknown: what an answer has that says that it does not know.
    """
    found = [
        {text: by_rule(each, text, unknown) for text in samples} for each, samples in zip(asked, texts, strict=True)
    ]
    open_ = [(n, text) for n, verdicts in enumerate(found) for text, verdict in verdicts.items() if verdict is None]
    if options.judge:
        dialogs = []
        for n, text in open_:
            for first, second in ((asked[n].answer, text), (text, asked[n].answer)):
                question = SAME.format(question=asked[n].question, first=first, second=second)
                dialogs.append([records.user(question)])
        replies = [answers[0].text for answers in setting.ask(dialogs, "judge", max_tokens=8)]
        for (n, text), one, other in zip(open_, replies[::2], replies[1::2], strict=True):
            found[n][text] = _of_both(one, other)
    return [[found[n][text] or "wrong" for text in samples] for n, samples in enumerate(texts)]


def by_rule(each: Asked, text: str, unknown: re.Pattern[str]) -> Sort | None:
    """What an answer is by verifiers; None if its words are others than those of the right answer."""
    if not text:
        return "empty"
    if each.judge(text).passed:
        return "right"
    if unknown.search(text) or classify(text).kind != "compliance":
        return "unknown"
    if A_NUMBER.match(each.answer):
        if last_number(text) is None:
            return "wrong"
        return "right" if Number()(text, each.answer).passed else "wrong"
    return None


def _of_both(one: str, other: str) -> Sort:
    if YES.match(one) and YES.match(other):
        return "right"
    return "wrong" if NO.match(one) and NO.match(other) else "undecided"
