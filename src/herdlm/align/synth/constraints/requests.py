"""What is asked for: texts about topics whose facts we have, and open requests that only a model can answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from herdlm.align.synth.draw import Draw
from herdlm.align.synth.texts import lines, table


@dataclass(frozen=True, slots=True)
class Topic:
    """A subject with sentences that are true of it, each of which stands on its own.

    Attributes:
        name: as it stands in a request, such as "honeybees".
        called: as the language of the sentences has it.
        language: code of the sentences' language, and its name in English.
    """

    name: str
    facts: tuple[str, ...]
    called: str = ""
    language: tuple[str, str] = ("en", "English")


@dataclass(frozen=True, slots=True)
class Genre:
    """A form of text.

    Attributes:
        asked: what stands in a request.
        openings, closings: sentences around the facts; "" for none. ``{topic}`` is the topic.
    """

    asked: str
    openings: Sequence[str] = ("",)
    closings: Sequence[str] = ("",)


TEXTS = table("constraints/requests.toml")
GENRES = tuple(Genre(**each) for each in TEXTS["genres"])
PLAIN = GENRES[0]


@cache
def topics() -> tuple[Topic, ...]:
    """The topics with facts in English."""
    return tuple(Topic(name, facts) for name, facts in _blocks("constraints/topics.txt"))


@cache
def foreign_topics() -> tuple[Topic, ...]:
    """The topics with facts in other languages."""
    found = []
    for head, facts in _blocks("constraints/languages.txt"):
        language, name, called = (part.strip() for part in head.split("|"))
        code, _, spoken = language.partition(" ")
        found.append(Topic(name, facts, called, (code, spoken)))
    return tuple(found)


@cache
def questions() -> tuple[tuple[str, str, str], ...]:
    """Questions with the answer yes, no or maybe, and a reason."""
    rows = [line.split("|") for line in lines("constraints/questions.txt")]
    return tuple((question, answer, reason) for question, answer, reason in rows)


def _blocks(name: str) -> list[tuple[str, tuple[str, ...]]]:
    """Headings that begin with "#", each with the lines below it."""
    found: list[tuple[str, list[str]]] = []
    for line in lines(name):
        if line.startswith("#"):
            found.append((line.lstrip("# "), []))
        else:
            found[-1][1].append(line)
    return [(head, tuple(lines)) for head, lines in found]


def open_request(draw: Draw) -> str:
    """A request that only a model can answer."""
    template: str = draw.one(TEXTS["open"])
    return template.format(**{name: draw.one(choices) for name, choices in TEXTS["fillers"].items()})


def request_about(draw: Draw, topic: str) -> tuple[str, Genre]:
    """A request for a text about a topic, and its form."""
    audience = draw.one(TEXTS["audiences"])
    if draw.chance(0.45):
        return draw.one(TEXTS["told"]).format(topic=topic, audience=audience), PLAIN
    genre = draw.one(GENRES)
    return draw.one(TEXTS["written"]).format(genre=genre.asked, topic=topic, audience=audience), genre
