"""Errors as the OpenAI API words them: ``{"error": {"message", "type", "param", "code"}}`` with an HTTP status."""

from __future__ import annotations

import difflib
import json
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from herdlm.base.errors import HerdError, InputError
from herdlm.serve.loop import EngineFailedError
from herdlm.serve.served import ContextError

log = logging.getLogger(__name__)

SHOWN_CHARACTERS = 80  # of a wrong value: it may be as long as a whole prompt


class RefusedError(InputError):
    """A request that cannot be met as it stands: which parameter, and the API's code for the reason."""

    def __init__(self, what: str, remedy: str = "", *, param: str | None = None, code: str, status: int = 400) -> None:
        super().__init__(what, remedy)
        self.param, self.code, self.status = param, code, status


def failure_of(error: Exception) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the body that tell of ``error``."""
    if isinstance(error, RefusedError):
        return error.status, _body(str(error), param=error.param, code=error.code)
    if isinstance(error, ContextError):
        return 400, _body(str(error), code="context_length_exceeded")
    if isinstance(error, InputError):
        return 400, _body(str(error))
    if isinstance(error, EngineFailedError):
        return 503, _body(str(error), "server_error", code="engine_failed")
    if isinstance(error, HerdError):
        return 500, _body(str(error), "server_error")
    log.error("a request failed", exc_info=error)
    return 500, _body(f"the server failed: {type(error).__name__}. Its log tells more", "server_error")


def install(app: FastAPI) -> None:
    """Have ``app`` answer every error in this form."""

    async def failed(request: Request, error: Exception) -> Response:
        status, body = failure_of(error)
        return json_response(body, status)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return json_response(_invalid(error), 400)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        body = _body(
            f"{error.detail}: {request.method} {request.url.path}",
            code="not_found" if error.status_code == 404 else None,
        )
        return json_response(body, error.status_code, dict(error.headers or {}))

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
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def nearest(name: str, known: list[str]) -> str:
    """A remedy for an unknown name."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else "Drop it"


def _invalid(error: RequestValidationError) -> dict[str, Any]:
    """The first problem that pydantic found, in one line."""
    problems = error.errors()
    problem = problems[0]
    param = ".".join(str(part) for part in problem["loc"] if part != "body")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in ("unsupported_parameter", "unknown_parameter"):
        field = ".".join(filter(None, [param, context["field"]]))
        return _body(f"{problem['msg']}{more}", param=field, code=kind)
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


def _body(
    message: str, kind: str = "invalid_request_error", *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
