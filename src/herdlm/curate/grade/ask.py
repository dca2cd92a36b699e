"""Asks a language model behind an OpenAI-compatible API, and retries what can succeed later."""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

from herdlm.base.errors import HerdError, InputError
from herdlm.curate.grade.config import LabelConfig

KEY_VARIABLES = ("HERDLM_API_KEY", "OPENAI_API_KEY")
MAX_REPLY_BYTES = 4 * 2**20
PIECE_BYTES = 2**16
MAX_MESSAGE_CHARS = 200  # of a server's error
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_ONLY_THIS = frozenset({400, 413, 422})


class NoAnswerError(HerdError):
    """A question got no answer: ``fault`` is ``refused`` (by the server) or ``no_answer`` (to any try)."""

    def __init__(self, fault: str, what: str) -> None:
        super().__init__(what)
        self.fault = fault


class _FailedTryError(Exception):
    """A try failed that can be repeated. ``wait`` is how many seconds the server asked to wait."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, which would send the key to another server."""

    def redirect_request(self, *arguments: Any) -> None:
        """Return no request."""


class Asker:
    """Asks ``model`` at ``address`` (such as http://127.0.0.1:8000/v1). Can be used from many threads.

    The key is ``HERDLM_API_KEY`` or else ``OPENAI_API_KEY`` from the environment.

    Raises:
        InputError: The address or the key is invalid.
    """

    def __init__(self, address: str, model: str, config: LabelConfig) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{address} is not the address of a server", "Give one like http://127.0.0.1:8000/v1")
        key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")
        if not key.isascii() or not key.isprintable():
            raise InputError(
                "the API key in the environment has characters that are not allowed in a header", "Set it again"
            )
        self.address, self.model, self.config = address.rstrip("/"), model, config
        self.retries = 0
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._opener = urllib.request.build_opener(_NoRedirects())
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Stop waiting: pending questions get no answer."""
        self._stop.set()

    def ask(self, messages: Sequence[dict[str, str]]) -> str:
        """Return the model's reply, after up to ``config.tries`` tries.

        Raises:
            NoAnswerError: There is none.
            InputError: No question can be answered, because the key, the address or the model's name is wrong.
        """
        body = json.dumps(
            {"model": self.model, "messages": messages, "max_tokens": self.config.max_tokens, "temperature": 0}
        ).encode("ascii")
        wait = self.config.first_wait_seconds
        for left in reversed(range(self.config.tries)):
            try:
                return _content(self._send(body))
            except _FailedTryError as failure:
                if not left:
                    raise NoAnswerError("no_answer", f"{self.address}: {failure}") from failure
                asked = 0.0 if failure.wait is None else failure.wait
            with self._lock:
                self.retries += 1
            if self._stop.wait(min(max(wait, asked), self.config.max_wait_seconds)):
                raise NoAnswerError("no_answer", "the run was stopped")
            wait *= 2
        raise AssertionError("the last try returns or raises")

    def _send(self, body: bytes) -> bytes:
        url = f"{self.address}/chat/completions"
        request = urllib.request.Request(url, body, self._headers, method="POST")  # noqa: S310 - http(s), checked above
        ends = time.monotonic() + self.config.timeout_seconds
        try:
            with self._opener.open(request, timeout=self.config.timeout_seconds) as response:
                return _read(response, ends)
        except urllib.error.HTTPError as error:
            with error:
                raise self._failure(error) from error
        except (OSError, http.client.HTTPException) as error:  # refused, reset, cut off, timed out
            raise _FailedTryError(str(getattr(error, "reason", "") or error or type(error).__name__)) from error

    def _failure(self, error: urllib.error.HTTPError) -> Exception:
        """Return the exception that an HTTP status means for the question."""
        try:
            message = _message(error.read(PIECE_BYTES))
        except (OSError, http.client.HTTPException):
            message = ""
        what = f"HTTP {error.code}{': ' if message else ''}{message}"
        if error.code in _AGAIN:
            return _FailedTryError(what, _retry_after(error.headers.get("Retry-After")))
        if error.code in _ONLY_THIS:
            return NoAnswerError("refused", f"{self.address}: {what}")
        return InputError(
            f"{self.address}: {what}",
            f"Check the address, the model's name {self.model!r} and the key in {' or '.join(KEY_VARIABLES)}",
        )


def _read(response: Any, ends: float) -> bytes:
    """Read the body, which must be complete at the time ``ends``."""
    pieces, size = [], 0
    while piece := response.read1(PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_REPLY_BYTES:
            raise _FailedTryError(f"the reply is longer than {MAX_REPLY_BYTES:,} bytes")
        if time.monotonic() > ends:
            raise _FailedTryError("the reply took too long")
    declared = response.headers.get("Content-Length")
    if declared is not None and declared.isdecimal() and size < int(declared):
        raise _FailedTryError("the reply is cut off")
    return b"".join(pieces)


def _content(body: bytes) -> str:
    """Return the text of the first choice."""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise _FailedTryError(f"the reply is not a chat completion: {_short(body)}") from error
    return content if isinstance(content, str) else ""  # null if the model declined


def _message(body: bytes) -> str:
    try:
        return _short(str(json.loads(body)["error"]["message"]).encode())
    except (ValueError, KeyError, TypeError):
        return _short(body)


def _short(body: bytes) -> str:
    return " ".join(body.decode("utf-8", "replace").split())[:MAX_MESSAGE_CHARS]


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, given in seconds or as a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None
