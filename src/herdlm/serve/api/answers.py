"""Responses in the exact shapes of the OpenAI API, complete or as the chunks of a stream."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from herdlm import __version__
from herdlm.serve.api.logprobs import chat_logprobs
from herdlm.serve.api.tool_calls import CallPiece, CallScanner
from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.protocol import SampleOutput
from herdlm.tokens.tokenizer import PYTHON_TAG


@dataclass(slots=True)
class Usage:
    """Token counts. ``completion_tokens`` includes the tokens that ended the answers."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        """The API's ``usage``."""
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


class Answer(ABC):
    """Formats the samples of one request; each sample is one choice."""

    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, model: ModelText) -> None:
        self.model = model
        self.id = f"{self.prefix}-{secrets.token_hex(12)}"
        self.created = int(time.time())

    @abstractmethod
    def choice(self, index: int, output: SampleOutput) -> dict[str, Any]:
        """The choice of a finished sample, from its whole output."""

    @abstractmethod
    def first_chunks(self, index: int) -> Iterator[dict[str, Any]]:
        """Choices of the chunks before the first token."""

    @abstractmethod
    def chunks(self, index: int, output: SampleOutput) -> Iterator[dict[str, Any]]:
        """Choices of the chunks for an output of a stream."""

    def completion_tokens(self, output: SampleOutput) -> int:
        """The tokens of ``output`` that count for the client."""
        return len(output.logprobs)

    def response(self, choices: list[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        """The complete response."""
        return self._envelope(self.whole_object, choices) | {"usage": usage.to_json()}

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """A chunk of a stream."""
        return self._envelope(self.chunk_object, choices)

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model.name,
            "choices": choices,
            "system_fingerprint": f"herdlm-{__version__}",
        }


class ChatAnswer(Answer):
    """An answer of ``/v1/chat/completions``.

    Args:
        logprobs: return each token's log-probability, also of tokens that a stop string cut off.
        functions: names of the functions that the answer may call.
        parallel: allow more than one call.
        continues: the answer goes on with a message, so a space that it begins with is the model's.
    """

    whole_object, chunk_object, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def __init__(
        self,
        model: ModelText,
        *,
        logprobs: bool,
        functions: frozenset[str] = frozenset(),
        parallel: bool = True,
        continues: bool = False,
    ) -> None:
        super().__init__(model)
        self.logprobs, self.functions, self.parallel, self.continues = logprobs, functions, parallel, continues
        self._texts: dict[int, _Text] = {}

    def choice(self, index: int, output: SampleOutput) -> dict[str, Any]:
        text, calls = "", list[dict[str, Any]]()
        for piece in self._pieces(index, output):
            if isinstance(piece, str):
                text += piece
            elif piece.name is not None:
                calls.append(piece.to_delta() | {"type": "function"})
            else:
                calls[-1]["function"]["arguments"] += piece.arguments
        message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
        if calls:
            message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in calls]
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(output),
            "finish_reason": self._reason(index, output),
        }

    def first_chunks(self, index: int) -> Iterator[dict[str, Any]]:
        yield self._to_choice(index, {"role": "assistant", "content": ""})

    def chunks(self, index: int, output: SampleOutput) -> Iterator[dict[str, Any]]:
        logprobs = self._logprobs(output) if output.tokens else None
        pieces = self._pieces(index, output) or ([""] if logprobs else [])
        for piece in pieces:
            delta = {"content": piece} if isinstance(piece, str) else {"tool_calls": [piece.to_delta()]}
            yield self._to_choice(index, delta, logprobs)
            logprobs = None  # with the first piece only
        if output.finish_reason:
            yield self._to_choice(index, {}, None, self._reason(index, output))

    def _pieces(self, index: int, output: SampleOutput) -> list[str | CallPiece]:
        """The text and calls in an output."""
        state = self._texts.get(index)
        if state is None:
            state = self._texts[index] = _Text(CallScanner(self.functions, self.parallel) if self.functions else None)
            if state.scanner and output.tokens and self.model.token_name(output.tokens[0]) == PYTHON_TAG:
                state.scanner.begin_code()
        text = output.text
        if text and not state.started:
            state.started = True
            text = text if self.continues else self.model.answer_text(text)
        if state.scanner is None:
            return [text] if text else []
        return state.scanner.feed(text, final=output.finish_reason is not None)

    def _reason(self, index: int, output: SampleOutput) -> str | None:
        scanner = self._texts[index].scanner
        called = output.finish_reason == "stop" and scanner is not None and scanner.calls > 0
        return "tool_calls" if called else output.finish_reason

    def _to_choice(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, output: SampleOutput) -> dict[str, Any] | None:
        return chat_logprobs(self.model, output) if self.logprobs else None


@dataclass(slots=True)
class _Text:
    """The state of one choice; ``started`` once some of its text was returned."""

    scanner: CallScanner | None
    started: bool = False
