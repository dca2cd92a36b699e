"""Composes prompts of a request and instructions, with the answer by program where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.align.synth.constraints import kinds
from herdlm.align.synth.constraints.arrange import arrange
from herdlm.align.synth.constraints.draft import Draft
from herdlm.align.synth.constraints.drawn import drawn
from herdlm.align.synth.constraints.requests import (
    PLAIN,
    Topic,
    foreign_topics,
    open_request,
    questions,
    request_about,
    topics,
)
from herdlm.align.synth.constraints.wording import joined, worded
from herdlm.align.synth.draw import Draw

PASSAGE = (
    "Present the following passage again.",
    "Pass on what this text says.",
    "Give back the content of the text below in the form that I ask for.",
    "Bring this text into another form.",
    "Here is a text that has to be prepared for our website.",
    "Copy the passage below, but in the form that is described.",
    "Reformat this passage.",
)
ENOUGH = 4  # sentences with which every layout can be filled


@dataclass(frozen=True, slots=True)
class Composed:
    """A prompt with its instructions.

    Attributes:
        answer: that keeps them, by program; None where only a model can answer.
        source: a document's id, or "".
        language: name of the language that is asked for, or "".
    """

    prompt: str
    names: list[str]
    kwargs: list[dict[str, Any]]
    answer: str | None
    source: str = ""
    language: str = ""

    @property
    def reference(self) -> dict[str, Any]:
        """What the verifier compares with."""
        return {"instruction_id_list": self.names, "kwargs": self.kwargs}


def chosen_kinds(draw: Draw, known: Sequence[str], most: int, *, is_open: bool, first: str) -> list[str]:
    """One to ``most`` kinds that can stand together, one of which is ``first``."""
    count = draw.number(1, most)
    found = [first]
    for kind in draw.some(known, len(known)):
        if len(found) < count and kinds.fits(kind, found, is_open=is_open):
            found.append(kind)
    return found


def compose(draw: Draw, chosen: list[str], passage: tuple[str, list[str]] | None) -> Composed | None:
    """A prompt about a topic or a passage, with an answer by program; None if the draw does not work out.

    Args:
        passage: id and sentences of a document's passage.
    """
    draft = _draft(draw, chosen, passage)
    if draft is None:
        return None
    found = arrange(draw, draft, chosen)
    if found is None:
        return None
    return _composed(draw, draft.request, found, answer=draft.text, name=draft.topic.language[1], passage=passage)


def compose_open(draw: Draw, chosen: list[str]) -> Composed:
    """A prompt that only a model can answer."""
    request = open_request(draw)
    found = {kind: drawn(draw, kind, request, chosen) for kind in chosen}
    name = str(found.get(kinds.LANGUAGE, {}).pop("name", ""))
    return _composed(draw, request, found, answer=None, name=name, passage=None)


def _draft(draw: Draw, chosen: list[str], passage: tuple[str, list[str]] | None) -> Draft | None:
    if kinds.CHOICE in chosen:
        question, answer, reason = draw.one(questions())
        return Draft(question, Topic("this", (reason,)), PLAIN, sentences=[f"My answer is {answer}.", reason])
    if kinds.LANGUAGE in chosen:
        topic = draw.one(foreign_topics())
        request, genre = request_about(draw, topic.name)
        count = draw.number(2, len(topic.facts))
        return Draft(request, topic, PLAIN, sentences=list(topic.facts[:count]))
    if passage is not None:
        request = f"{draw.one(PASSAGE)}\n\n{' '.join(passage[1])}"
        return Draft(request, Topic("the text", tuple(passage[1])), PLAIN, sentences=list(passage[1]))
    topic = draw.one(topics())
    request, genre = request_about(draw, topic.name)
    facts = [fact for fact in topic.facts if kinds.NO_COMMA not in chosen or "," not in fact]
    count = draw.number(ENOUGH if any(kind in kinds.LAYOUTS for kind in chosen) else 3, len(facts) - 1)
    opening, closing = (draw.one(each).format(topic=topic.name) for each in (genre.openings, genre.closings))
    said = draw.some(facts, count)
    rest = [fact for fact in facts if fact not in said]
    if draw.chance(0.8):  # the facts build on each other a little
        said = [fact for fact in facts if fact in said]
    return Draft(request, topic, genre, rest, said, opening, closing)


def _composed(
    draw: Draw,
    request: str,
    found: dict[str, dict[str, Any]],
    *,
    answer: str | None,
    name: str,
    passage: tuple[str, list[str]] | None,
) -> Composed:
    order = draw.some(list(found), len(found))
    if kinds.REPEAT in order:  # it speaks of the request above, so it comes first
        order = [kinds.REPEAT, *(kind for kind in order if kind != kinds.REPEAT)]
    if kinds.END in order and order[-1] != kinds.END:
        order = [*(kind for kind in order if kind != kinds.END), kinds.END]
    rules = [worded(draw, kind, found[kind] | ({"name": name} if kind == kinds.LANGUAGE else {})) for kind in order]
    prompt = joined(draw, request, rules, request_first=kinds.REPEAT in order)
    return Composed(prompt, order, [found[kind] for kind in order], answer, passage[0] if passage else "", name)
