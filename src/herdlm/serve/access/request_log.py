"""The record of one request: who sent it, token counts, times. The access log and the metrics are made from it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from herdlm.serve.access.limits import KeyLimiter, KeyUsage


@dataclass(slots=True)
class RequestRecord:
    """Filled in while the request is answered.

    Attributes:
        id: sent in the header ``x-request-id``.
        model: the name of one of the server's models; empty if the request named none.
        cached_tokens: prompt tokens that the prefix cache held.
        first_token_at, last_token_at: monotonic seconds; set for streams only.
        error: the API's error code.
        texts: prompts, kept only if the log shall hold them.
    """

    method: str
    path: str
    client: str = ""
    key_usage: KeyUsage | None = None
    id: str = field(default_factory=lambda: f"req-{secrets.token_hex(12)}")
    started_at: float = field(default_factory=time.monotonic)
    status: int = 0
    model: str = ""
    stream: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    first_token_at: float | None = None
    last_token_at: float | None = None
    ended_at: float = 0.0
    error: str | None = None
    texts: Any = None

    def add_prompt(self, tokens: int) -> None:
        """Count a prompt's tokens.

        Raises:
            RefusedError: the key's token limit does not cover them.
        """
        if self.key_usage:
            KeyLimiter.charge_prompt(self.key_usage, tokens)
        self.prompt_tokens += tokens

    def add_completion(self, tokens: int) -> None:
        """Count tokens of the answer; in a stream they arrived just now."""
        if not tokens:
            return
        if self.stream:
            self.last_token_at = time.monotonic()
            if self.first_token_at is None:
                self.first_token_at = self.last_token_at
        self.completion_tokens += tokens
        if self.key_usage:
            KeyLimiter.charge_completion(self.key_usage, tokens)

    def log_entry(self) -> dict[str, Any]:
        """The request's line in the access log."""
        first = None if self.first_token_at is None else _milliseconds(self.first_token_at - self.started_at)
        entry = {
            "id": self.id,
            "key": self.key_usage.key.name if self.key_usage else None,
            "client": self.client,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "error": self.error,
            "model": self.model or None,
            "stream": self.stream,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "first_token_ms": first,
            "total_ms": _milliseconds(self.ended_at - self.started_at),
        }
        return entry if self.texts is None else entry | {"texts": self.texts}


def record_of(request: Request) -> RequestRecord:
    """The record of a request."""
    record: RequestRecord = request.scope["record"]
    return record


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 2)
