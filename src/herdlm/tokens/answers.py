"""What the assistant writes in the text of a rendered dialog."""

from __future__ import annotations

import re
from dataclasses import dataclass

from herdlm.tokens.chat_template import BEGIN_ANSWER, END_ANSWER


@dataclass(frozen=True, slots=True)
class Marked:
    """A rendered dialog, with the ranges of characters that the assistant writes."""

    text: str
    answers: list[tuple[int, int]]


def without_marks(text: str) -> Marked:
    """The text without the marks around answers, and the ranges they enclosed."""
    pieces, answers, length = [], list[tuple[int, int]](), 0
    for part in re.split(f"({BEGIN_ANSWER}|{END_ANSWER})", text):
        if part == BEGIN_ANSWER:
            answers.append((length, length))
        elif part == END_ANSWER:
            answers[-1] = (answers[-1][0], length)
        else:
            pieces.append(part)
            length += len(part)
    return Marked("".join(pieces), answers)


def behind(prefix: str, text: str) -> int | None:
    """Where ``text`` goes on behind ``prefix``, apart from white space in it; None if it begins otherwise.

    Hermes' template writes a new line after a tool's result only when the dialog goes on.
    """
    if text.startswith(prefix):
        return len(prefix)
    at = 0
    for character in prefix.rstrip():
        if character.isspace():
            continue
        while text[at : at + 1].isspace():
            at += 1
        if text[at : at + 1] != character:
            return None
        at += 1
    for character in prefix[len(prefix.rstrip()) :]:
        if text[at : at + 1] != character:
            break
        at += 1
    return at
