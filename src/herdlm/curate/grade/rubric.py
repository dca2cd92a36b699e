"""Rubrics: instructions for a language model that judges documents, and how its answer is read.

A rubric is a Markdown file. Its last section, ``## Answers``, lists the allowed answers as bullets that begin with the
answer in backticks. If all answers are whole numbers, they are scores, else names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from herdlm.base.artifact import hash_bytes
from herdlm.base.errors import InputError

SHIPPED = ("quality", "domains")
_HEADING = re.compile(r"^## Answers *$", re.MULTILINE)
_CHOICE = re.compile(r"^[-*] +`([\w-]+)`", re.MULTILINE)
_ANSWER = re.compile(r"\**Answer:\** *\**`?([\w-]+)`?\**\.?")
_DOCUMENT = "The document, between the two lines of equals signs:\n\n{rule}\n{text}\n{rule}\n\nNow judge it."
_RULE = "=" * 40


@dataclass(frozen=True, slots=True)
class Rubric:
    """A rubric's text, its allowed answers, and the first 16 digits of its SHA-256."""

    text: str
    answers: tuple[str, ...]
    digest: str

    @property
    def scores(self) -> bool:
        """Whether the answers are scores."""
        return all(answer.isdecimal() for answer in self.answers)

    def messages(self, document: str) -> list[dict[str, str]]:
        """Return the messages that ask about a document."""
        question = _DOCUMENT.format(rule=_RULE, text=document)
        return [{"role": "system", "content": self.text}, {"role": "user", "content": question}]

    def parse(self, reply: str) -> str | None:
        """Return the answer of a reply, which must end with its only line of the form ``Answer: X``, or None.

        Anything before ``</think>`` is not part of the reply.
        """
        lines = [line.strip() for line in reply.rpartition("</think>")[2].splitlines() if line.strip()]
        given = [match[1] if (match := _ANSWER.fullmatch(line)) else None for line in lines]
        if not given or given[-1] not in self.answers or any(given[:-1]):
            return None
        return given[-1]


def load_rubric(name: str) -> Rubric:
    """Load a rubric from a file, or one of ``SHIPPED`` by name.

    Raises:
        InputError: There is no such file, or it lists fewer than two answers.
    """
    if name in SHIPPED:
        text = (files("herdlm.curate.grade") / "rubrics" / f"{name}.md").read_text(encoding="utf-8")
    elif Path(name).is_file():
        try:
            text = Path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"rubric {name} is not UTF-8", "Save it as UTF-8") from error
    else:
        raise InputError(f"there is no rubric {name}", f"Give a Markdown file, or one of {', '.join(SHIPPED)}")
    sections = _HEADING.split(text)
    answers = tuple(dict.fromkeys(_CHOICE.findall(sections[-1]))) if len(sections) == 2 else ()
    if len(answers) < 2:
        raise InputError(
            f"rubric {name} has no section '## Answers' with two answers or more",
            "List them as bullets that begin with the answer in backticks",
        )
    return Rubric(text.strip(), answers, hash_bytes(text.encode())[:16])
