"""The errors of serving, and how the OpenAI API words them: ``{"error": {"message", "type", "param", "code"}}``.

This module imports neither FastAPI nor torch, so workers, commands without a server and the server itself can use it.
"""

from __future__ import annotations

import difflib
import logging
import math
from typing import Any, NamedTuple

from herdlm.base.errors import HerdError, InputError

log = logging.getLogger(__name__)

MAX_SHOWN = 80  # characters of a wrong value in a message: it may be as long as a whole prompt


class ContextError(InputError):
    """A prompt and the requested answer do not fit into the model's context."""


class WorkerFailedError(HerdError):
    """The worker that had the request is gone; the client may send the request again.

    Args:
        retry_after: seconds until a new worker is likely to answer.
    """

    def __init__(self, what: str, remedy: str = "", *, retry_after: float = 1) -> None:
        super().__init__(what, remedy)
        self.retry_after = retry_after


class TooLongError(HerdError):
    """The request exceeded the server's time limit."""


class RefusedError(InputError):
    """The server refuses a request, for good or for now.

    Args:
        param: the parameter at fault.
        code: the API's name of the reason.
        status: the HTTP status.
        retry_after: seconds after which the client may send it again.
    """

    def __init__(
        self,
        what: str,
        remedy: str = "",
        *,
        param: str | None = None,
        code: str,
        status: int = 400,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, remedy)
        self.param, self.code, self.status, self.retry_after = param, code, status, retry_after


# Status, type and code of each class of error, subclasses first.
STATUS: list[tuple[type[HerdError], tuple[int, str, str | None]]] = [
    (ContextError, (400, "invalid_request_error", "context_length_exceeded")),
    (InputError, (400, "invalid_request_error", None)),
    (WorkerFailedError, (503, "server_error", "worker_failed")),
    (TooLongError, (504, "server_error", "timeout")),
    (HerdError, (500, "server_error", None)),
]
TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class ErrorResponse(NamedTuple):
    """An error as an HTTP response."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def code(self) -> str:
        """The API's code of the error, or its type if it has no code."""
        error = self.body["error"]
        return str(error["code"] or error["type"])


def error_response(error: Exception) -> ErrorResponse:
    """The response for ``error``. Logs errors that are not the project's own."""
    if isinstance(error, RefusedError):
        kind = TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
        body = error_body(str(error), kind, param=error.param, code=error.code)
        return ErrorResponse(error.status, body, _retry_after(error.retry_after))
    if isinstance(error, HerdError):
        status, kind, code = next(entry for known, entry in STATUS if isinstance(error, known))
        seconds = error.retry_after if isinstance(error, WorkerFailedError) else None
        return ErrorResponse(status, error_body(str(error), kind, code=code), _retry_after(seconds))
    log.error("a request failed", exc_info=error)
    message = f"the server failed: {type(error).__name__}. See the server's log"
    return ErrorResponse(500, error_body(message, "server_error"), {})


def error_body(
    message: str, kind: str = "invalid_request_error", *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The JSON body of an error response."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


ANTHROPIC = "/v1/messages"  # paths of that API begin so
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


def in_words_of(path: str, body: dict[str, Any], status: int) -> dict[str, Any]:
    """The body of an error response in the form of the API at ``path``."""
    return anthropic_error(body, status) if path.startswith(ANTHROPIC) else body


def anthropic_error(body: dict[str, Any], status: int) -> dict[str, Any]:
    """The body of an error response in Anthropic's form."""
    kind = _ANTHROPIC_TYPES.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": body["error"]["message"]}}


def shown(value: Any) -> str:
    """A wrong value for an error message: in ASCII, and cut after ``MAX_SHOWN`` characters."""
    text = ascii(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def nearest(name: str, known: list[str]) -> str:
    """A remedy for an unknown name."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else "Drop it"


def misspelled(name: str, known: list[str]) -> str | None:
    """The parameter that an unknown name is likely to mean."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return near[0] if near else None


def _retry_after(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"retry-after": str(max(math.ceil(seconds), 1))}
