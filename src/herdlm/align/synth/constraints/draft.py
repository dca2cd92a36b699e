"""An answer by program that is under construction, and the forms that it can take."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from herdlm.align.synth.constraints.requests import Genre, Topic
from herdlm.align.synth.draw import Draw
from herdlm.align.synth.texts import table

WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
LIKELY_NAMES = re.compile(r"[A-Z]{2}|\d")


@dataclass
class Draft:
    """An answer as sentences, then as blocks, then as text.

    Attributes:
        request: what is asked, without instructions.
        topic: what it is about.
        unused: sentences that are true of the topic, but not in the answer.
        sentences: what the answer says.
        opening, closing: sentences around it; "" for none.
        blocks: paragraphs or lines of the answer, set by the layout.
        divider: what stands between blocks.
        text: the whole, once it is put together.
    """

    request: str
    topic: Topic
    genre: Genre
    unused: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    opening: str = ""
    closing: str = ""
    blocks: list[str] = field(default_factory=list)
    divider: str = "\n\n"
    text: str = ""

    def take(self) -> str | None:
        """A true sentence that was not used yet."""
        return self.unused.pop() if self.unused else None

    def paragraphs(self, draw: Draw, count: int) -> list[str]:
        """The sentences in so many paragraphs, opening and closing included, none of them empty."""
        parts: list[list[str]] = [[] for _ in range(count)]
        base, extra = divmod(len(self.sentences), count)
        at = 0
        for number in range(count):
            size = base + (number < extra)
            parts[number] = self.sentences[at : at + size]
            at += size
        parts[0] = [self.opening, *parts[0]] if self.opening else parts[0]
        parts[-1] = [*parts[-1], self.closing] if self.closing else parts[-1]
        return [" ".join(part) for part in parts if part]

    def put_first(self, text: str) -> None:
        """Put a line above everything; it is no block of its own where marks divide blocks."""
        if self.divider == "\n\n" or not self.blocks:
            self.blocks.insert(0, text)
        else:
            self.blocks[0] = f"{text}\n\n{self.blocks[0]}"

    def put_last(self, text: str) -> None:
        """Put a line below everything."""
        if self.divider == "\n\n" or not self.blocks:
            self.blocks.append(text)
        else:
            self.blocks[-1] = f"{self.blocks[-1]}\n\n{text}"

    def put_together(self) -> None:
        """Make the text of the blocks."""
        self.text = self.divider.join(self.blocks)


def content_words(text: str, *, least: int = 5) -> list[str]:
    """Different words in small letters that say something, in their order."""
    found = dict.fromkeys(
        word for word in WORD.findall(text) if len(word) >= least and word.islower() and word not in EMPTY
    )
    return list(found)


def as_json(draw: Draw, draft: Draft) -> str:
    """The sentences as a JSON object."""
    name = draft.topic.name
    shape = draw.number(0, 3)
    if shape == 0:
        value: object = {draw.one(("topic", "subject")): name, draw.one(("facts", "points")): draft.sentences}
    elif shape == 1:
        keys = draw.one((("title", "summary", "details"), ("heading", "intro", "more")))
        value = {keys[0]: name, keys[1]: draft.sentences[0], keys[2]: draft.sentences[1:]}
    elif shape == 2:
        value = {"topic": name, **{f"fact_{number}": text for number, text in enumerate(draft.sentences, 1)}}
    else:
        value = {"answer": {"about": name, "text": " ".join(draft.sentences)}}
    text = json.dumps(value, indent=2 if draw.chance(0.7) else None, ensure_ascii=False)
    return f"```json\n{text}\n```" if draw.chance(0.35) else text


EMPTY = frozenset(table("constraints/words.toml")["empty"])
