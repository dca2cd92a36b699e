"""Requests to refuse and harmless ones, from our own words, and their rewordings by a teacher."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from herdlm.align.synth import records
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.setting import REPEATED, Made, Setting, dropped
from herdlm.align.synth.teacher_config import SafetyConfig
from herdlm.align.synth.texts import table
from herdlm.align.synth.words import alike, content_words, tidy, unfinished, words
from herdlm.verifiers.refusals.classify import classify

TEXTS = table("safety/texts.toml")
CATEGORIES = {category["code"]: category for category in TEXTS["categories"]}
HARMLESS = re.compile(TEXTS["harmless"], re.IGNORECASE)
REWORD = (
    "Here is what someone asked an assistant. Do not answer it. Write the same request in other words, as another "
    "person would put it, in one or two sentences. It must still ask for the same thing. Write only the request.\n\n"
    "{text}"
)
MOST_WORDS = 60
COPY = 0.95  # share of words from which a rewording is none
LEAST_WORDS = 4

Sort = Literal["violating", "borderline"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request, its category of harm, and the words that make it what it is."""

    text: str
    sort: Sort
    code: str
    keys: tuple[str, ...]
    reworded: bool = False

    @property
    def wanted(self) -> str:
        """What an answer should do."""
        return "refusal" if self.sort == "violating" else "compliance"


def violating(setting: Setting, count: int) -> list[Request]:
    """Different requests to refuse, at most ``count``, spread over the categories."""
    acts = [(code, act) for code, category in CATEGORIES.items() for act in category["acts"]]
    drawn = _spread(setting, [(code, act, ask) for code, act in acts for ask in TEXTS["asks"]], "violating")
    return [
        Request(ask.format(act=act["act"]), "violating", code, tuple(act["keys"])) for code, act, ask in drawn[:count]
    ]


def borderline(setting: Setting, count: int) -> list[Request]:
    """Different harmless requests, at most ``count``, spread over the categories."""
    texts = [(code, text) for code, category in CATEGORIES.items() for text in category["borderline"]]
    drawn = _spread(setting, texts, "borderline")
    return [Request(text, "borderline", code, tuple(sorted(content_words(text)))) for code, text in drawn[:count]]


def _spread(setting: Setting, items: Sequence[tuple], name: str) -> list[tuple]:  # type: ignore[type-arg]
    """All items in a random order, in which each category has its turn as often as it can."""
    by_code: dict[str, list[tuple]] = {}  # type: ignore[type-arg]
    for item in Draw(setting.random(name)).some(items, len(items)):
        by_code.setdefault(item[0], []).append(item)
    most = max(map(len, by_code.values()))
    return [group[turn] for turn in range(most) for group in by_code.values() if turn < len(group)]


def reword(setting: Setting, options: SafetyConfig, requests: Sequence[Request]) -> Iterator[Request | Made]:
    """The teacher's rewordings that still ask for the same; others as dropped ones."""
    answers = setting.ask(
        [[records.user(REWORD.format(text=each.text))] for each in requests],
        "reword",
        samples=options.rewordings,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    for each, samples in zip(requests, answers, strict=True):
        for answer in samples:
            text = tidy(answer.text)
            wrong = unfinished(answer) or _wrong(each, text)
            if not wrong and not setting.is_new(text):
                wrong = REPEATED
            if wrong:
                row = {"prompt": [records.user(text)], "category": each.code, "of": each.text}
                yield dropped(row, wrong)
            else:
                yield Request(text, each.sort, each.code, each.keys, reworded=True)


def _wrong(each: Request, text: str) -> str:
    """What is wrong with a rewording, "" for nothing."""
    if not LEAST_WORDS <= len(words(text)) <= MOST_WORDS or "\n" in text:
        return "the rewording is too short or too long"
    if classify(text).kind != "compliance":
        return "the teacher refuses to reword it"
    if alike(text, each.text) >= COPY:
        return REPEATED
    return _changed(each, text)


def _changed(each: Request, text: str) -> str:
    """Whether a rewording asks for something else, "" if not."""
    if each.sort == "violating":
        # Without these words, or with words of protection, it may have become harmless.
        if not all(re.search(rf"\b{key}", text, re.IGNORECASE) for key in each.keys):
            return "the rewording asks for something else"
        if HARMLESS.search(text):
            return "the rewording asks for something harmless"
    elif 2 * len(content_words(text) & set(each.keys)) < len(each.keys):
        return "the rewording asks for something else"
    return ""
