"""Answers in the exact shapes of the OpenAI API, whole or in chunks of a stream."""

from __future__ import annotations

import codecs
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from herdlm import __version__
from herdlm.generate.request import Completion, Event
from herdlm.serve.served import ServedModel

LOWEST_LOGPROB = -9999.0  # stands for minus infinity, which JSON has not


@dataclass(slots=True)
class Usage:
    """Counts of tokens. Those of the answer are all that were drawn, the ones that ended it included."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def told(self) -> dict[str, int]:
        """As the API has it."""
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens, "total_tokens": total,
        }  # fmt: skip


class Answer(ABC):
    """Puts the samples of one request into words; each sample is one choice.

    Args:
        logprobs: whether to tell each token's log-probability. Where a stop string ended a sample, its tokens are told.
    """

    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, model: ServedModel, *, logprobs: bool) -> None:
        self.model, self.logprobs = model, logprobs
        self.id = f"{self.prefix}-{secrets.token_hex(12)}"
        self.created = int(time.time())

    @abstractmethod
    def whole(self, index: int, completion: Completion) -> dict[str, Any]:
        """The choice for a finished sample."""

    @abstractmethod
    def opening(self, index: int) -> Iterator[dict[str, Any]]:
        """Choices of the chunks that come before any token."""

    @abstractmethod
    def news(self, index: int, event: Event) -> Iterator[dict[str, Any]]:
        """Choices of the chunks that tell of ``event``."""

    def response(self, choices: list[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        """The whole answer."""
        return self._envelope(self.whole_object, choices) | {"usage": usage.told()}

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """One chunk of a stream."""
        return self._envelope(self.chunk_object, choices)

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id, "object": kind, "created": self.created, "model": self.model.name, "choices": choices,
            "system_fingerprint": f"herdlm-{__version__}",
        }  # fmt: skip


class ChatAnswer(Answer):
    """An answer of ``/v1/chat/completions``."""

    whole_object, chunk_object, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def __init__(self, model: ServedModel, *, logprobs: bool) -> None:
        super().__init__(model, logprobs=logprobs)
        self._begun: set[int] = set()  # choices of which some text was told

    def whole(self, index: int, completion: Completion) -> dict[str, Any]:
        return {
            "index": index,
            "message": {"role": "assistant", "content": self.model.answer_text(completion.text), "refusal": None},
            "logprobs": self._logprobs(completion.tokens, completion.logprobs),
            "finish_reason": completion.finish_reason,
        }

    def opening(self, index: int) -> Iterator[dict[str, Any]]:
        yield self._choice(index, {"role": "assistant", "content": ""})

    def news(self, index: int, event: Event) -> Iterator[dict[str, Any]]:
        text = event.text
        if text and index not in self._begun:
            self._begun.add(index)
            text = self.model.answer_text(text)
        if text or (self.logprobs and event.tokens):
            yield self._choice(index, {"content": text}, self._logprobs(event.tokens, event.logprobs))
        if event.completion:
            yield self._choice(index, {}, None, event.completion.finish_reason)

    def _choice(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, tokens: Sequence[int], logprobs: Sequence[float]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        told = []
        for token, logprob in zip(tokens, logprobs, strict=False):  # a stop token has the last log-probability alone
            content = self.model.token_bytes(token)
            told.append({
                "token": content.decode(errors="replace"), "logprob": max(logprob, LOWEST_LOGPROB),
                "bytes": list(content), "top_logprobs": [],
            })  # fmt: skip
        return {"content": told, "refusal": None}


class CompletionAnswer(Answer):
    """An answer of ``/v1/completions``."""

    whole_object, chunk_object, prefix = "text_completion", "text_completion", "cmpl"

    def __init__(self, model: ServedModel, *, logprobs: bool) -> None:
        super().__init__(model, logprobs=logprobs)
        self._offsets: dict[int, TextOffset] = {}

    def whole(self, index: int, completion: Completion) -> dict[str, Any]:
        logprobs = self._logprobs(index, completion.tokens, completion.logprobs)
        return self._choice(index, completion.text, logprobs, completion.finish_reason)

    def opening(self, index: int) -> Iterator[dict[str, Any]]:
        yield from ()

    def news(self, index: int, event: Event) -> Iterator[dict[str, Any]]:
        if event.text or event.completion or (self.logprobs and event.tokens):
            logprobs = self._logprobs(index, event.tokens, event.logprobs)
            reason = event.completion.finish_reason if event.completion else None
            yield self._choice(index, event.text, logprobs, reason)

    def _choice(self, index: int, text: str, logprobs: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, index: int, tokens: Sequence[int], logprobs: Sequence[float]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        offset = self._offsets.setdefault(index, TextOffset())
        contents = [self.model.token_bytes(token) for token in tokens]
        return {
            "tokens": [content.decode(errors="replace") for content in contents],
            "token_logprobs": [max(logprob, LOWEST_LOGPROB) for logprob in logprobs[: len(tokens)]],
            "top_logprobs": None,
            "text_offset": [offset.before(content) for content in contents],
        }


class TextOffset:
    """Where in the text each token of a sample begins, in characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._characters = 0

    def before(self, content: bytes) -> int:
        """The offset of the next token, whose bytes are ``content``."""
        begin = self._characters
        self._characters += len(self._decoder.decode(content))
        return begin
