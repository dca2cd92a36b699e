"""Rubrics: what a model that judges is asked, and how its reply is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from herdlm.base.errors import InputError
from herdlm.base.json_files import parse_toml
from herdlm.base.recipe import Section, parse
from herdlm.tokens.chat import text_of

RULE = "=" * 20
A, B, TIE = 1.0, 0.0, 0.5
_BETTER = re.compile(r"^\W*better\W*:\W*(A|B|tie)\b", re.MULTILINE | re.IGNORECASE)


class Criterion(Section):
    """One thing that answers are marked for."""

    name: str = Field(pattern=r"^[A-Za-z][\w-]*$", description="one word, which the judge repeats")
    points: int = Field(ge=1, le=100, description="the most that it gives")
    text: str = Field(min_length=1, description="what deserves them")


class Rubric(Section):
    """What answers are marked for, by task.

    Attributes:
        tasks: the criteria of prompts with these tasks, in place of ``criteria``.
    """

    about: str = Field("", description="what the judge is told before the criteria")
    criteria: list[Criterion] = Field(min_length=1)
    tasks: dict[str, list[Criterion]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _distinct(self) -> Rubric:
        for criteria in (self.criteria, *self.tasks.values()):
            names = [each.name.lower() for each in criteria]
            if not names or len(set(names)) < len(names):
                raise ValueError("a task has no criteria, or one name twice")
        return self

    def of(self, task: str | None) -> list[Criterion]:
        """The criteria of a task."""
        return self.tasks.get(task or "") or self.criteria

    def best(self, task: str | None) -> int:
        """The most points of an answer."""
        return sum(each.points for each in self.of(task))


BUILT_IN = Rubric(
    criteria=[
        Criterion(
            name="overall",
            points=5,
            text="5: right, complete, clear, and as long as it should be; 4: good with a small flaw; 3: of use, but "
            "with a gap or an error; 2: mostly wrong or beside the point; 1: hardly an answer; 0: none, or harmful",
        )
    ]
)


def load_rubric(path: Path) -> Rubric:
    """The rubric in a TOML file.

    Raises:
        InputError: it cannot be read, or a key is wrong; with file and key.
    """
    try:
        return parse(Rubric, parse_toml(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Give a TOML file; see docs/rounds.md") from error
    except ValueError as error:
        raise InputError(f"{path} is not TOML: {error}", "Correct it") from error


def marking(rubric: Rubric, row: Mapping[str, Any], answer: str, *, reverse: bool) -> str:
    """What the judge is asked about one answer; ``reverse`` names criteria and points in the other order."""
    criteria = _ordered(rubric.of(row.get("task")), reverse)
    listed = [f"- {each.name} ({_range(each, reverse)} points): {each.text}" for each in criteria]
    lines = [f"{each.name}: <{_range(each, reverse)}>" for each in criteria]
    return "\n\n".join(
        [
            "An assistant has answered a user. Mark the answer.",
            *([rubric.about] if rubric.about else []),
            "The criteria:\n" + "\n".join(listed),
            *_conversation(row),
            f"The answer to mark:\n{RULE}\n{answer}\n{RULE}",
            "Say in one or two sentences what is good and what is not. Then end with the points, a line each:\n"
            + "\n".join(lines),
        ]
    )


def marks(rubric: Rubric, task: str | None, reply: str) -> dict[str, float] | None:
    """The points of each criterion in a reply; None if one is missing or out of range."""
    found: dict[str, float] = {}
    for each in rubric.of(task):
        pattern = rf"^\W*{re.escape(each.name)}\W*:[\s*<]*(\d+(?:\.\d+)?)"
        given = re.findall(pattern, reply, re.MULTILINE | re.IGNORECASE)
        if not given or float(given[-1]) > each.points:
            return None
        found[each.name] = float(given[-1])
    return found


def comparing(rubric: Rubric, row: Mapping[str, Any], first: str, second: str) -> str:
    """What the judge is asked about two answers."""
    listed = [f"- {each.name}: {each.text}" for each in rubric.of(row.get("task"))]
    return "\n\n".join(
        [
            "Two assistants have answered a user. Say which answer is better. Neither its place nor its length counts.",
            *([rubric.about] if rubric.about else []),
            "The criteria:\n" + "\n".join(listed),
            *_conversation(row),
            f"Answer A:\n{RULE}\n{first}\n{RULE}",
            f"Answer B:\n{RULE}\n{second}\n{RULE}",
            "Compare them in one or two sentences. Then end with one of these lines:\n"
            "Better: A\nBetter: B\nBetter: tie",
        ]
    )


def better(reply: str) -> float | None:
    """The part of a win that a reply gives to answer A: 1, 0, or a half for a tie; None if it does not say."""
    given = _BETTER.findall(reply)
    return {"a": A, "b": B, "tie": TIE}[given[-1].lower()] if given else None


def _conversation(row: Mapping[str, Any]) -> list[str]:
    said = "\n".join(f"[{message['role']}] {text_of(message)}" for message in row["prompt"])
    shown = [f"The conversation:\n{RULE}\n{said}\n{RULE}"]
    if isinstance(row.get("answer"), str):
        shown.append(f"The right result is: {row['answer']}")
    return shown


def _ordered(criteria: Sequence[Criterion], reverse: bool) -> list[Criterion]:
    return list(reversed(criteria)) if reverse else list(criteria)


def _range(criterion: Criterion, reverse: bool) -> str:
    return f"{criterion.points} to 0" if reverse else f"0 to {criterion.points}"
