"""Middleware: authentication, body size, rate limits, draining, and one line of JSON per request in the access log.

The log holds no prompts unless the server was told to log them, and never answers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from herdlm.base.errors import InputError
from herdlm.serve.access.headers import check_framing, check_host, header, with_safe_headers
from herdlm.serve.access.keys import KeyFile
from herdlm.serve.access.limits import KeyLimiter, ServerLimits
from herdlm.serve.access.request_log import RequestRecord
from herdlm.serve.access.responses import json_response
from herdlm.serve.errors import RefusedError, error_response, in_words_of

log = logging.getLogger(__name__)
access_log = logging.getLogger("herdlm.access")

OPEN = ("/health", "/page/")  # paths that need no key, besides the page itself; every other needs one
CLOSED_WHEN_DRAINING = ("/v1/", "/tokenize", "/detokenize", "/tokenizer_info")
ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")  # a request's id that a client may give
UNLOGGED = ("/health", "/metrics")  # polled every few seconds


class Gate:
    """Whether the server accepts new requests, and how many are in flight."""

    def __init__(self) -> None:
        self.draining = False
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def enter(self) -> None:
        """Count a request in."""
        self.in_flight += 1
        self.idle.clear()

    def leave(self) -> None:
        """Count it out."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()


class AccessMiddleware:
    """ASGI middleware around the application.

    Args:
        keys: who may send requests; None lets everyone in.
        loopback_only: refuse requests whose header Host names another machine.
        count: receives the record of each request that has ended.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyFile | None,
        limits: ServerLimits,
        gate: Gate,
        count: Callable[[RequestRecord], None],
        loopback_only: bool = False,
    ) -> None:
        self.app, self.keys, self.limits, self.gate, self.count = app, keys, limits, gate, count
        self.loopback_only = loopback_only
        self.key_limiter = KeyLimiter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an HTTP request; pass other events on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = RequestRecord(scope["method"], scope["path"], (scope.get("client") or ("",))[0])
        if ID.fullmatch(given := header(scope, b"x-request-id")):
            record.id = given
        scope["record"] = record

        async def send_recording(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                sent = [*message.get("headers", ()), (b"x-request-id", record.id.encode())]
                message["headers"] = with_safe_headers(sent)
            await send(message)

        drainable = scope["path"].startswith(CLOSED_WHEN_DRAINING)
        if drainable:
            self.gate.enter()
        try:
            try:
                check_framing(scope)
                if self.loopback_only:
                    check_host(scope)
                self._authorize(scope, record)
                replayed = await self._read_body(scope, receive) if scope["method"] == "POST" else receive
            except Exception as error:
                status, body, headers = error_response(error)
                record.error = body["error"]["code"]
                body = in_words_of(scope["path"], body, status)
                await json_response(body, status, headers)(scope, receive, send_recording)
            else:
                try:
                    await self.app(scope, replayed, send_recording)
                except Exception:
                    record.status = record.status or 500  # the enclosing layer sends it
                    raise
        finally:
            record.ended_at = time.monotonic()
            if record.key_usage:
                record.key_usage.running -= 1
            self.count(record)
            if not scope["path"].startswith(UNLOGGED):
                access_log.info(json.dumps({"time": round(time.time(), 3)} | record.log_entry()))
            if drainable:
                self.gate.leave()

    def _authorize(self, scope: Scope, record: RequestRecord) -> None:
        if self.gate.draining and scope["path"].startswith(CLOSED_WHEN_DRAINING):
            raise RefusedError(
                "the server is shutting down",
                "Retry when it is back",
                code="shutting_down",
                status=503,
                retry_after=self.limits.drain_seconds,
            )
        reads = scope["method"] in ("GET", "HEAD")
        if self.keys is None or (reads and (scope["path"] == "/" or scope["path"].startswith(OPEN))):
            return
        given = header(scope, b"authorization") or f"Bearer {header(scope, b'x-api-key')}"  # Anthropic's clients
        scheme, _, secret = given.partition(" ")
        try:
            key = self.keys.find(secret.strip()) if scheme.lower() == "bearer" else None
        except InputError as error:  # the key file is missing or damaged, which is not the client's fault
            log.error("no API key can be checked: %s", error)  # noqa: TRY400 - a traceback adds nothing
            raise RefusedError(
                "the server cannot check API keys",
                "See the server's log",
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
        """Read the whole body within the limits; returns a ``receive`` that replays it."""
        limit = self.limits.body_bytes
        length = header(scope, b"content-length")
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
                f"the body did not arrive within {self.limits.body_seconds:g} s",
                "Send it faster",
                code="request_timeout",
                status=408,
            ) from None
        pending: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]
        if message["type"] == "http.disconnect":
            pending.append(message)

        async def replay() -> Message:
            return pending.pop(0) if pending else await receive()

        return replay


def _too_large(limit: int) -> RefusedError:
    return RefusedError(
        f"the body exceeds {limit} bytes", "Send less, or raise --max-body-mib", code="request_too_large", status=413
    )
