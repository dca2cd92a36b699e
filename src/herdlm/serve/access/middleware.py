"""The door that every request passes: is the server open, who is it, is the request of bearable size and rate.

What comes in is counted and, when it leaves, logged as one line of JSON. Prompts and answers are not part of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from herdlm.base.errors import InputError
from herdlm.serve.access.keys import KeyFile
from herdlm.serve.access.limits import KeyLimiter, ServerLimits
from herdlm.serve.access.request_log import RequestRecord
from herdlm.serve.errors import RefusedError, error_response, json_response
from herdlm.serve.metrics import Metrics

log = logging.getLogger(__name__)
access = logging.getLogger("herdlm.access")

NEED_KEY = ("/v1/", "/tokenize", "/detokenize", "/tokenizer_info", "/metrics")  # need a key where there are keys
CLOSED_WHEN_DRAINING = ("/v1/", "/tokenize", "/detokenize", "/tokenizer_info")
UNLOGGED = ("/health", "/metrics")  # asked every few seconds


class Gate:
    """Whether new requests are let in, and how many are in_flight."""

    def __init__(self) -> None:
        self.draining = False
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def enter(self) -> None:
        """A request comes in."""
        self.in_flight += 1
        self.idle.clear()

    def leave(self) -> None:
        """It has been answered."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()


class AccessMiddleware:
    """ASGI middleware around the application.

    Args:
        keys: None lets everyone in.
    """

    def __init__(
        self, app: ASGIApp, *, keys: KeyFile | None, limits: ServerLimits, gate: Gate, metrics: Metrics
    ) -> None:
        self.app, self.keys, self.limits, self.gate, self.metrics = app, keys, limits, gate, metrics
        self.key_limiter = KeyLimiter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass on what is none."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = RequestRecord(scope["method"], scope["path"], (scope.get("client") or ("",))[0])
        scope["record"] = record

        async def send_recording(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", record.id.encode())]
            await send(message)

        drainable = scope["path"].startswith(CLOSED_WHEN_DRAINING)
        if drainable:
            self.gate.enter()
        try:
            try:
                self._admit(scope, record)
                replayed = await self._read_body(scope, receive) if scope["method"] == "POST" else receive
            except Exception as error:
                status, body, headers = error_response(error)
                record.error = body["error"]["code"]
                await json_response(body, status, headers)(scope, receive, send_recording)
            else:
                try:
                    await self.app(scope, replayed, send_recording)
                except Exception:
                    record.status = record.status or 500  # length by the layer around this one
                    raise
        finally:
            record.ended_at = time.monotonic()
            if record.key_usage:
                record.key_usage.running -= 1
            self.metrics.count(record)
            if not scope["path"].startswith(UNLOGGED):
                access.info(json.dumps({"time": round(time.time(), 3)} | record.log_entry()))
            if drainable:
                self.gate.leave()

    def _admit(self, scope: Scope, record: RequestRecord) -> None:
        if self.gate.draining and scope["path"].startswith(CLOSED_WHEN_DRAINING):
            raise RefusedError(
                "the server is shutting down",
                "PromptRequest again when it is back",
                code="shutting_down",
                status=503,
                retry_after=self.limits.drain_seconds,
            )
        if self.keys is None or not scope["path"].startswith(NEED_KEY):
            return
        kind, _, secret = _header(scope, b"authorization").partition(" ")
        try:
            key = self.keys.find(secret.strip()) if kind.lower() == "bearer" else None
        except InputError as error:  # the file is gone or damaged: nobody is let in, and it is not the client's fault
            log.error("no API key can be checked: %s", error)  # noqa: TRY400 - it says all
            raise RefusedError(
                "the server cannot check API keys",
                "Its log tells more",
                code="keys_unavailable",
                status=503,
                retry_after=10,
            ) from error
        if key is None:
            what = "the API key is wrong" if secret else "there is no API key"
            raise RefusedError(
                what, "Send one in the header Authorization: Bearer KEY", code="invalid_api_key", status=401
            )
        record.key_usage = self.key_limiter.admit(key)

    async def _read_body(self, scope: Scope, receive: Receive) -> Receive:
        """The whole body, read within the limits; returns a ``receive`` that gives it and then goes on."""
        limit = self.limits.body_bytes
        length = _header(scope, b"content-length")
        if length.isdecimal() and int(length) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while (message := await receive())["type"] == "http.request":
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise _too_large(limit)
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise RefusedError(
                f"the body did not come within {self.limits.body_seconds:g} s",
                "Send it faster",
                code="request_timeout",
                status=408,
            ) from None
        waiting: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]
        if message["type"] == "http.disconnect":
            waiting.append(message)

        async def replay() -> Message:
            return waiting.pop(0) if waiting else await receive()

        return replay


def _too_large(limit: int) -> RefusedError:
    return RefusedError(
        f"the body exceeds {limit} bytes", "Send less, or raise --max-body-mib", code="request_too_large", status=413
    )


def _header(scope: Scope, name: bytes) -> str:
    found: Any = next((value for key, value in scope["headers"] if key == name), b"")
    return str(found.decode("latin-1"))
