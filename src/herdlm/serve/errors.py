"""Errors as the OpenAI API words them: ``{"error": {"message", "type", "param", "code"}}`` with an HTTP status."""

from __future__ import annotations

import difflib
import json
import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from herdlm.base.errors import HerdError, InputError
from herdlm.serve.workers.generation import TooLongError, WorkerFailedError
from herdlm.serve.workers.model_text import ContextError

# Status, type and code, the narrower kinds of error first.
STATUS: list[tuple[type[HerdError], tuple[int, str, str | None]]] = [
    (ContextError, (400, "invalid_request_error", "context_length_exceeded")),
    (InputError, (400, "invalid_request_error", None)),
    (WorkerFailedError, (503, "server_error", "worker_failed")),
    (TooLongError, (504, "server_error", "timeout")),
    (HerdError, (500, "server_error", None)),
]
TYPES = {401: "authentication_error", 429: "rate_limit_error"}

log = logging.getLogger(__name__)

MAX_SHOWN = 80  # of a wrong value: it may be as long as a whole prompt


class RefusedError(InputError):
    """A request that cannot be met as it stands, or not now.

    Args:
        param: the parameter at fault.
        code: the API's name of the reason.
        retry_after: seconds after which it may be sent again.
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


def error_response(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """The HTTP status, the body and the headers that tell of ``error``."""
    if isinstance(error, RefusedError):
        kind = TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
        return (
            error.status,
            _body(str(error), kind, param=error.param, code=error.code),
            _retry_after(error.retry_after),
        )
    if isinstance(error, HerdError):
        status, kind, code = next(entry for known, entry in STATUS if isinstance(error, known))
        return (
            status,
            _body(str(error), kind, code=code),
            _retry_after(error.retry_after if isinstance(error, WorkerFailedError) else None),
        )
    log.error("a request failed", exc_info=error)
    return 500, _body(f"the server failed: {type(error).__name__}. Its log tells more", "server_error"), {}


def install(app: FastAPI) -> None:
    """Have ``app`` answer every error in this form."""

    async def failed(request: Request, error: Exception) -> Response:
        status, body, headers = error_response(error)
        return _record_error(request, body, status, headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _record_error(request, _validation_body(error), 400, {})

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        body = _body(
            f"{error.detail}: {request.method} {request.url.path}",
            code="not_found" if error.status_code == 404 else None,
        )
        return _record_error(request, body, error.status_code, dict(error.headers or {}))

    app.add_exception_handler(HerdError, failed)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, failed)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """``body`` as JSON. Characters outside ASCII are escaped, as an error may quote what is no valid Unicode."""
    return Response(json.dumps(body, allow_nan=False), status, headers, "application/json")


def shown(value: Any) -> str:
    """A wrong value for an error message: unambiguous, and not too long."""
    text = ascii(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def nearest(name: str, known: list[str]) -> str:
    """A remedy for an unknown name."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else "Drop it"


def _validation_body(error: RequestValidationError) -> dict[str, Any]:
    """The first problem that pydantic found, in one line."""
    problems = error.errors()
    problem = problems[0]
    param = ".".join(str(part) for part in problem["loc"] if part != "body")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in ("unsupported_parameter", "unknown_parameter", "faulty_parameter"):
        field = ".".join(filter(None, [param, context["field"]]))
        code = "invalid_value" if kind == "faulty_parameter" else kind
        return _body(f"{problem['msg']}{more}", param=field, code=code)
    if kind == "json_invalid":
        return _body(f"the body is not valid JSON: {context.get('error', 'unreadable')}", code="invalid_json")
    if not param and kind == "value_error":
        return _body(f"{context['error']}{more}", code="invalid_value")
    if not param:
        return _body("the body is no JSON object with content type application/json", code="invalid_body")
    if kind == "missing":
        return _body(f"{param} is missing{more}", param=param, code="missing_required_parameter")
    reason = problem["msg"][:1].lower() + problem["msg"][1:]
    return _body(f"{ascii(param)[1:-1]} = {shown(problem['input'])}: {reason}{more}", param=param, code="invalid_value")


def _record_error(request: Request, body: dict[str, Any], status: int, headers: dict[str, str]) -> Response:
    if record := request.scope.get("record"):
        record.error = body["error"]["code"] or body["error"]["type"]
    return json_response(body, status, headers)


def _retry_after(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"retry-after": str(max(math.ceil(seconds), 1))}


def _body(
    message: str, kind: str = "invalid_request_error", *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
