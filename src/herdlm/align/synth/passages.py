"""Documents in sections of whole paragraphs, and questions that a teacher writes about sections."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.align.synth import records
from herdlm.align.synth.setting import REPEATED, Made, Setting, dropped
from herdlm.align.synth.words import is_in, numbers, tidy, unfinished, words
from herdlm.base.errors import InputError
from herdlm.tokens.documents import Document
from herdlm.verifiers.detect import detect_language
from herdlm.verifiers.text import Text
from herdlm.verifiers.verdict import Verdict

KEPT = 1000  # documents to draw from
LEAST_WORDS = 40  # of a section
MOST_ANSWER = 12  # words
BY = Text(contains=True)
OPTIONS = {"contains": True}
FORM = re.compile(
    r"\A[*#\s]*Question[*\s]*:[*\s]*(?P<question>.+?)\s*\n[*#\s]*Answer[*\s]*:[*\s]*(?P<answer>.+?)\s*\Z", re.DOTALL
)
POINTS = re.compile(
    r"\b(?:this|the (?:above|given|following)) (?:passage|text|part|section|paragraph|excerpt|document)\b"
    r"|\baccording to the (?:passage|text|part|section|paragraph|excerpt|document)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Read:
    """A document to draw from, cut after a paragraph, and the language that was detected."""

    id: str
    text: str
    language: str
    sections: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a section of a document, with its answer in a few words of the section."""

    document: Read
    section: str
    place: int
    question: str
    answer: str

    def judge(self, answer: str) -> Verdict:
        """Whether an answer has the answer in it."""
        return BY(answer, self.answer)

    def row(self, **more: Any) -> dict[str, Any]:
        """What is written of a dropped one."""
        named = {"prompt": [records.user(self.question)], "answer": self.answer, "document": self.document.id}
        return {**named, "section": self.place, **more}


def read_documents(setting: Setting, what: str, *, shortest: int, longest: int, section: int) -> list[Read]:
    """The first documents that are long enough and whose language can be told.

    Raises:
        InputError: there are none.
    """
    found: list[Read] = []
    for document in setting.need_documents(what):
        text = document.text.strip()
        if len(text) < shortest:
            continue
        text = cut(text, longest)
        divided = tuple(part for part in sections(text, section) if len(words(part)) >= LEAST_WORDS)
        language = _language(document, text)
        if divided and language and len(text) >= shortest:
            found.append(Read(document.id, text, language, divided))
        if len(found) == KEPT:
            break
    if not found:
        raise InputError(
            f"{setting.name}: the documents hold none with {shortest:,} characters in paragraphs of at most "
            f"{longest:,} and a language that can be told",
            "Give others, or lower shortest",
        )
    return found


def _language(document: Document, text: str) -> str | None:
    given = document.language.partition("-")[0]
    detected = detect_language(text[:5000])
    if detected is None or given in ("und", "", detected.partition("-")[0]) or len(given) != 2:
        return detected
    return None


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text: what blank lines divide or, without any, its lines."""
    parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    return parts if len(parts) > 1 else [line.strip() for line in text.split("\n") if line.strip()]


def cut(text: str, longest: int) -> str:
    """The beginning of a text up to the last end of a paragraph, or of a line, within a length."""
    if len(text) <= longest:
        return text
    short = text[:longest]
    ends = [match.start() for match in re.finditer(r"\n\s*\n", short)] or [short.rfind("\n")]
    return short[: max(ends[-1], 0)].rstrip()


def sections(text: str, size: int) -> list[str]:
    """A text in sections of whole paragraphs, of at least ``size`` characters; a short rest goes to the one before."""
    found: list[list[str]] = [[]]
    for part in paragraphs(text):
        if sum(map(len, found[-1])) >= size:
            found.append([])
        found[-1].append(part)
    if len(found) > 1 and sum(map(len, found[-1])) < size / 2:
        found[-2:] = [found[-2] + found[-1]]
    return ["\n\n".join(held) for held in found if held]


def questions(
    setting: Setting,
    documents: Sequence[Read],
    count: int,
    wording: str,
    *,
    temperature: float,
    max_tokens: int,
    look: Callable[[str], str] = lambda question: "",
) -> Iterator[Asked | Made]:
    """Questions that the teacher writes, with answers that occur in their sections; others as dropped ones.

    Args:
        wording: asks for a question and its answer; {section} is filled in.
        look: what is wrong with a question in the caller's view, "" for nothing.
    """
    drawn = _drawn(setting, documents, count)
    asked = [[records.user(wording.format(section=document.sections[place]))] for document, place in drawn]
    answers = setting.ask(asked, "question", temperature=temperature, max_tokens=max_tokens)
    for (document, place), (answer,) in zip(drawn, answers, strict=True):
        row = {"document": document.id, "section": place, "text": answer.text}
        match = FORM.match(answer.text)
        wrong = unfinished(answer) or ("" if match else "has not the form of a question and its answer")
        if wrong or match is None:
            yield dropped(row, wrong)
            continue
        made = Asked(document, document.sections[place], place, tidy(match["question"]), tidy(match["answer"]))
        wrong = _wrong(made) or look(made.question)
        if not wrong and not setting.is_new(made.question):
            wrong = REPEATED
        yield dropped(made.row(), wrong) if wrong else made


def _drawn(setting: Setting, documents: Sequence[Read], count: int) -> list[tuple[Read, int]]:
    """Different sections, each document's next one in turn, so that all documents are asked about as often."""
    order = setting.random("documents").permutation(len(documents)).tolist()
    left = [
        (documents[index], setting.random("sections", index).permutation(len(documents[index].sections)).tolist())
        for index in order
    ]
    most = max(len(places) for _, places in left)
    turns = [(document, places[turn]) for turn in range(most) for document, places in left if turn < len(places)]
    return turns[:count]


def _wrong(made: Asked) -> str:
    """What is wrong with a question and its answer, by rule."""
    size = len(words(made.answer))
    if not 1 <= size <= MOST_ANSWER or "\n" in made.answer:
        return "the answer has not a few words"
    if POINTS.search(made.question):
        return "the question speaks of the section"
    if not is_in(made.document.language, made.question):
        return "the question is in another language"
    if not BY(made.section, made.answer).passed:
        foreign = numbers(made.answer).keys() - numbers(made.section).keys()
        return f"the answer {'has numbers that the section has not' if foreign else 'does not occur in the section'}"
    if set(words(made.answer)) <= set(words(made.question)):
        return "the question gives the answer away"
    return ""
