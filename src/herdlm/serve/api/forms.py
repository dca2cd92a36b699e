"""How an answer is written: whole, or as server-sent events. Each API has a form; this is that of completions."""

from __future__ import annotations

import json
from typing import Any, Protocol

from herdlm.serve.api.answers import Usage
from herdlm.serve.api.requests import UsageChunks

PING = ": ping\n\n"  # a comment, which clients skip; it keeps proxies from closing a connection that waits


class Form(Protocol):
    """Writes an answer in the words of an API. ``chunk`` and ``whole`` get what OpenAI's completions have.

    Attributes:
        ping: what is sent while a client waits.
    """

    ping: str

    def whole(self, response: dict[str, Any]) -> dict[str, Any]:
        """The complete response."""

    def chunk(self, chunk: dict[str, Any], usage: Usage) -> str:
        """A part of a stream; ``usage`` counts the tokens so far."""

    def end(self, empty: dict[str, Any], usage: Usage) -> str:
        """The end of a stream; ``empty`` is a chunk without choices."""

    def failed(self, error: dict[str, Any]) -> str:
        """The end of a stream that failed after it had begun."""


class CompletionForm:
    """The form of ``/v1/completions`` and ``/v1/chat/completions``.

    Args:
        usage_chunks: the chunks of a stream that count tokens.
    """

    ping = PING

    def __init__(self, usage_chunks: UsageChunks) -> None:
        self.usage_chunks = usage_chunks

    def whole(self, response: dict[str, Any]) -> dict[str, Any]:
        """As it is."""
        return response

    def chunk(self, chunk: dict[str, Any], usage: Usage) -> str:
        """A chunk, with the tokens so far if they were asked for."""
        if self.usage_chunks != "none":
            chunk = chunk | {"usage": usage.to_json() if self.usage_chunks == "all" else None}
        return _line(chunk)

    def end(self, empty: dict[str, Any], usage: Usage) -> str:
        """The token counts if they were asked for, and the mark of the end."""
        last = "" if self.usage_chunks == "none" else _line(empty | {"usage": usage.to_json()})
        return f"{last}data: [DONE]\n\n"

    def failed(self, error: dict[str, Any]) -> str:
        """The error in the place of a chunk."""
        return _line(error)


def event(body: dict[str, Any]) -> str:
    """A server-sent event that is named after its type."""
    return f"event: {body['type']}\n{_line(body)}"


def _line(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, allow_nan=False, ensure_ascii=False)}\n\n"
