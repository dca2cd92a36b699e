"""What is asked of a model: the likelihood of continuations, and answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Question:
    """A text to continue, or a dialog whose answer is asked for.

    Attributes:
        text: the text; of a dialog what is shown of it.
        messages: of a dialog.
        tools: functions that the model may call.
    """

    text: str = ""
    messages: tuple[dict[str, Any], ...] | None = None
    tools: tuple[dict[str, Any], ...] = ()

    def shown(self) -> str:
        """The question as a reader sees it."""
        if self.messages is None:
            return self.text
        return "\n".join(f"[{message['role']}] {message['content']}" for message in self.messages)


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """How likely is ``continuation`` after ``question``?"""

    question: Question
    continuation: str


@dataclass(frozen=True, slots=True)
class Scored:
    """The likelihood of a continuation.

    Attributes:
        logprobs: natural log-probability of each token.
        greedy: whether each token is the most likely one.
        cut: tokens of the context that did not fit into the model's.
    """

    logprobs: list[float]
    greedy: bool
    cut: int = 0

    @property
    def logprob(self) -> float:
        """Of the whole continuation."""
        return sum(self.logprobs)


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """An answer to generate; ``seed`` decides what is drawn."""

    question: Question
    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated answer.

    Attributes:
        tokens: its length.
        logprob: of its tokens, end token included; None if the model's server does not say.
        finish: "stop" or "length".
        calls: function calls that the model's server has taken out of the text: name and arguments of each.
    """

    text: str
    tokens: int
    logprob: float | None
    finish: str
    calls: list[dict[str, Any]] = field(default_factory=list)

    @property
    def whole(self) -> str:
        """The answer as judges see it: the text or, where a server took calls out of it, these as JSON.

        A local model's text holds its calls in the model's own format; the verifier ``call`` reads both.
        """
        return json.dumps(self.calls, ensure_ascii=False) if self.calls else self.text


class EvaluatedModel(Protocol):
    """A model that can be asked.

    Attributes:
        name: by which results are filed.
        fingerprint: equal for equal models only.
        chats: whether it has a chat template.
        context: most tokens of a question and its answer.
        width: how many times as many items as one engine it is best asked about together.
    """

    name: str
    fingerprint: str
    chats: bool
    context: int
    width: int

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """The likelihood of each continuation, in order."""

    def score_text(self, text: str) -> list[float]:
        """The log-probability of each token of a text, the first one after the begin token."""

    def answer(self, requests: Sequence[AnswerRequest]) -> Iterator[tuple[int, list[Answer]]]:
        """The answers to each request with its number, as they are finished."""

    def count(self, text: str) -> int:
        """Its length in tokens."""

    def close(self) -> None:
        """Free the model."""
