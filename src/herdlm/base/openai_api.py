"""Asks a server of the OpenAI API on the standard library, and retries what can succeed later."""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

from herdlm.base.errors import HerdError, InputError

KEY_VARIABLES = ("HERDLM_API_KEY", "OPENAI_API_KEY")
MAX_REPLY_BYTES = 4 * 2**20
PIECE_BYTES = 2**16
MAX_MESSAGE_CHARS = 200  # of a server's error
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})

T = TypeVar("T")


class NoReplyError(HerdError):
    """No try got a reply that can be used."""


class StatusError(InputError):
    """The server refused a request with an HTTP ``status`` that stays."""

    def __init__(self, status: int, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.status = status


class _FailedTryError(Exception):
    """A try failed that can be repeated. ``wait`` is how many seconds the server asked to wait."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, which would send the key to another server."""

    def redirect_request(self, *arguments: Any) -> None:
        """Return no request."""


class OpenAIServer:
    """A server at ``address``, such as http://127.0.0.1:8000/v1. Can be used from many threads.

    Args:
        key: sent as bearer token.
        key_over_http: whether the key may travel unencrypted to another machine.
        tries: of one request.
        first_wait, max_wait: seconds between tries; waits double, and a server's Retry-After is heeded up to the limit.
        timeout: seconds of one try.
        max_bytes: of a reply.
        remedy: what to do where the server refuses for good.

    Attributes:
        retries: failed tries that were repeated.

    Raises:
        InputError: the address or the key is invalid, or the key may not be sent there.
    """

    def __init__(
        self,
        address: str,
        *,
        key: str = "",
        key_over_http: bool = True,
        tries: int = 6,
        first_wait: float = 1.0,
        max_wait: float = 60.0,
        timeout: float = 120.0,
        max_bytes: int = MAX_REPLY_BYTES,
        remedy: str = "",
    ) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{address} is not the address of a server", "Give one like http://127.0.0.1:8000/v1")
        if not key.isascii() or not key.isprintable():
            raise InputError("the API key has characters that are not allowed in a header", "Set it again")
        local = is_loopback(parts.hostname)
        if key and parts.scheme == "http" and not local and not key_over_http:
            raise InputError(
                f"the API key would travel unencrypted to {address}",
                "Give an https address, remove the key, or allow it with --key-over-http",
            )
        self.address, self.retries = address.rstrip("/"), 0
        self._tries, self._first_wait, self._max_wait = tries, first_wait, max_wait
        self._timeout, self._max_bytes, self._remedy = timeout, max_bytes, remedy
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        proxies = [urllib.request.ProxyHandler({})] if local else []
        self._opener = urllib.request.build_opener(_NoRedirects(), *proxies)
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Stop waiting: pending requests fail."""
        self._stop.set()

    def ask(self, path: str, body: dict[str, Any] | None, read: Callable[[Any], T]) -> T:
        """What ``read`` finds in the JSON of the reply to ``POST path``, or to ``GET path`` if there is no body.

        Args:
            read: raises ValueError, KeyError, IndexError, TypeError or AttributeError where the reply lacks something.

        Raises:
            NoReplyError: no try succeeded, or :meth:`stop` was called.
            StatusError: the server refuses.
        """
        content = None if body is None else json.dumps(body).encode("ascii")
        wait = self._first_wait
        for left in reversed(range(self._tries)):
            try:
                return self._read_reply(self._send(path, content), read)
            except _FailedTryError as failure:
                if not left:
                    raise NoReplyError(f"{self.address}: {failure}", "Run again to go on") from failure
                asked = 0.0 if failure.wait is None else failure.wait
            with self._lock:
                self.retries += 1
            if self._stop.wait(min(max(wait, asked), self._max_wait)):
                raise NoReplyError(f"{self.address}: the run was stopped")
            wait *= 2
        raise AssertionError("the last try returns or raises")

    def _read_reply(self, content: bytes, read: Callable[[Any], T]) -> T:
        try:
            return read(json.loads(content))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise _FailedTryError(f"the reply is not as the OpenAI API has it: {_short(content)}") from error

    def _send(self, path: str, body: bytes | None) -> bytes:
        method = "GET" if body is None else "POST"
        request = urllib.request.Request(f"{self.address}{path}", body, self._headers, method=method)  # noqa: S310 - http(s), checked above
        ends = time.monotonic() + self._timeout
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return _read(response, ends, self._max_bytes)
        except urllib.error.HTTPError as error:
            with error:
                raise self._failure(error) from error
        except (OSError, http.client.HTTPException) as error:  # refused, reset, cut off, timed out
            raise _FailedTryError(str(getattr(error, "reason", "") or error or type(error).__name__)) from error

    def _failure(self, error: urllib.error.HTTPError) -> Exception:
        """What an HTTP status means for a request."""
        try:
            message = _message(error.read(PIECE_BYTES))
        except (OSError, http.client.HTTPException):
            message = ""
        what = f"HTTP {error.code}{': ' if message else ''}{message}"
        if error.code in _AGAIN:
            return _FailedTryError(what, _retry_after(error.headers.get("Retry-After")))
        return StatusError(error.code, f"{self.address}: {what}", self._remedy)


def environment_key() -> str:
    """The API key in the environment; empty if there is none."""
    return next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, so that nothing sent there can be overheard."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(response: Any, ends: float, most: int) -> bytes:
    """Read the body, which must be complete at the time ``ends``."""
    pieces, size = [], 0
    while piece := response.read1(PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise _FailedTryError(f"the reply is longer than {most:,} bytes")
        if time.monotonic() > ends:
            raise _FailedTryError("the reply took too long")
    declared = response.headers.get("Content-Length")
    if declared is not None and declared.isdecimal() and size < int(declared):
        raise _FailedTryError("the reply is cut off")
    return b"".join(pieces)


def _message(body: bytes) -> str:
    try:
        return _short(str(json.loads(body)["error"]["message"]).encode())
    except (ValueError, KeyError, TypeError):
        return _short(body)


def _short(body: bytes) -> str:
    return " ".join(body.decode("utf-8", "replace").split())[:MAX_MESSAGE_CHARS]


def _retry_after(value: str | None) -> float | None:
    """The seconds of a Retry-After header, given in seconds or as a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None
