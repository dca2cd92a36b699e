"""A dialog or prompt as the steps see it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from herdlm.data.useless import digest
from herdlm.tokens.chat import Message, text_of

FENCED = re.compile(r"```.*?(?:```|\Z)", re.S)
INLINE = re.compile(r"`[^`\n]+`")


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer that is trained on, with what it answers.

    Attributes:
        asked: the last message of the user before it, and the system prompt.
        answer: its text, stripped.
        prose: the answer without code.
        calls: whether it calls tools.
    """

    asked: str
    answer: str
    prose: str
    calls: bool


@dataclass
class Example:
    """A row with what the steps find out about it.

    Attributes:
        number: its place in what was given.
        topic: its task, or the one it was classified as.
        language: of its answers, or of the prompt if it has none; "" if that is not known.
        reward, full_marks: the reward model's score; whether a judge gave its highest mark, or a verifier passed it.
        difficulty: how many things the prompt wants.
        score: its place among the rewards of its topic, from 0 to 1; 1 with full marks, 0.5 without a reward.
    """

    row: Mapping[str, Any]
    number: int
    topic: str = ""
    language: str = ""
    difficulty: int = 1
    score: float = 0.5
    notes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def messages(self) -> Sequence[Message]:
        """All messages; of a prompt, those of the prompt."""
        found: Sequence[Message] = self.row["messages"] if "messages" in self.row else self.row["prompt"]
        return found

    @cached_property
    def turns(self) -> list[Turn]:
        """The answers that are trained on."""
        found, asked, system = [], "", ""
        for message in self.messages:
            text = text_of(message).strip()
            if message["role"] == "system":
                system = text
            elif message["role"] == "user":
                asked = text
            elif message["role"] == "assistant" and message.get("weight", 1.0) and "messages" in self.row:
                calls = bool(message.get("tool_calls") or message.get("code"))
                found.append(Turn(f"{system}\n{asked}".strip(), text, prose(text), calls))
        return found

    @cached_property
    def asked(self) -> str:
        """What the user says, all messages."""
        return "\n\n".join(text_of(m).strip() for m in self.messages if m["role"] == "user")

    @cached_property
    def text(self) -> str:
        """What all say, without the system prompt."""
        return "\n\n".join(text_of(m).strip() for m in self.messages if m["role"] != "system")

    @property
    def lineage(self) -> Mapping[str, Any]:
        """Where it comes from."""
        found: Mapping[str, Any] = self.row.get("lineage") or {}
        return found

    @property
    def reward(self) -> float | None:
        """The reward model's score, if there is one."""
        found = self.row.get("reward", self.lineage.get("reward"))
        return float(found) if isinstance(found, int | float) and math.isfinite(found) else None

    @property
    def full_marks(self) -> bool | None:
        """Whether a judge gave its highest mark or a verifier passed the answer; None: nothing judged it."""
        verdict = self.row.get("verdict")
        if isinstance(verdict, dict) and verdict.get("passed") is not None:
            return bool(verdict["passed"])
        if self.lineage.get("verdict"):
            return True  # only answers that passed are selected with a verdict
        judge = self.row.get("judge") or self.lineage.get("judge") or {}
        if judge.get("score") is None or judge.get("best") is None:
            return None
        return bool(judge["score"] >= judge["best"])

    @cached_property
    def key(self) -> str:
        """16 hex digits of a hash of what is trained on: the same for the same messages and tools."""
        return digest({"messages": list(self.messages), "tools": self.row.get("tools")}).hex()[:16]

    @cached_property
    def order(self) -> tuple[Any, ...]:
        """What examples are sorted by before any step, so that their order in the files does not matter."""
        return (self.key, json.dumps(self.row, sort_keys=True, default=str))

    @property
    def preference(self) -> tuple[Any, ...]:
        """What examples are sorted by where only some can stay: best first, by quality times difficulty."""
        reward = self.reward
        return (-self.score * self.difficulty, -self.score, 0.0 if reward is None else -reward, *self.order)


def prose(text: str) -> str:
    """A text without its code."""
    return INLINE.sub(" ", FENCED.sub("\n", text)).strip()
