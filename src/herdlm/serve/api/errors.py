"""Exception handlers that answer every error in the OpenAI API's form."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from herdlm.base.errors import HerdError
from herdlm.serve.access.responses import json_response
from herdlm.serve.errors import ErrorResponse, error_body, error_response, in_words_of, shown


def install_error_handlers(app: FastAPI) -> None:
    """Make ``app`` answer every error in the API's form."""

    async def handle_error(request: Request, error: Exception) -> Response:
        return _respond(request, error_response(error))

    async def handle_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _respond(request, ErrorResponse(400, _validation_body(error), {}))

    async def handle_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = "not_found" if error.status_code == 404 else None
        body = error_body(f"{error.detail}: {request.method} {request.url.path}", code=code)
        return _respond(request, ErrorResponse(error.status_code, body, dict(error.headers or {})))

    app.add_exception_handler(HerdError, handle_error)
    app.add_exception_handler(RequestValidationError, handle_validation)
    app.add_exception_handler(HTTPException, handle_http)
    app.add_exception_handler(Exception, handle_error)


def _respond(request: Request, response: ErrorResponse) -> Response:
    if record := request.scope.get("record"):
        record.error = response.code
    body = in_words_of(request.url.path, response.body, response.status)
    return json_response(body, response.status, response.headers)


def _validation_body(error: RequestValidationError) -> dict[str, Any]:
    """The first problem that pydantic found, in one line."""
    problems = error.errors()
    problem = problems[0]
    param = ".".join(str(part) for part in problem["loc"] if not _internal(part))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in ("unsupported_parameter", "unknown_parameter", "invalid_parameter"):
        field = ".".join(filter(None, [param, context["field"]]))
        code = "invalid_value" if kind == "invalid_parameter" else kind
        return error_body(f"{problem['msg']}{more}", param=field, code=code)
    if kind == "json_invalid":
        return error_body(f"the body is not valid JSON: {context.get('error', 'unreadable')}", code="invalid_json")
    if not param and kind == "value_error":
        return error_body(f"{context['error']}{more}", code="invalid_value")
    if not param:
        return error_body("the body is not a JSON object with content type application/json", code="invalid_body")
    if kind == "missing":
        return error_body(f"{param} is missing{more}", param=param, code="missing_required_parameter")
    reason = problem["msg"].removeprefix("Value error, ").replace("Input should", "it must")
    reason = reason[:1].lower() + reason[1:]
    message = f"{ascii(param)[1:-1]} = {shown(problem['input'])}: {reason}{more}"
    return error_body(message, param=param, code="invalid_value")


def _internal(part: str | int) -> bool:
    """Whether a part of a place in the body is the validator's name of a form, not a field's."""
    return part == "body" or (isinstance(part, str) and (part[:1].isupper() or "[" in part or "-" in part))
