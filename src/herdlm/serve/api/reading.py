"""Reads request bodies: within bounds of their parts, and beside the event loop, which never parses a large one."""

from __future__ import annotations

import asyncio
import json
import typing
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from herdlm.serve.errors import RefusedError

MAX_PARTS = 200_000
"""The most values of a body. Reading one value takes the time of thousands of characters of text."""
SMALL_BYTES = 16_384  # read in the event loop, since a thread takes longer


class BodyRoute(APIRoute):
    """A route whose function takes ``body``, a model of pydantic's, and ``request``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Replaces FastAPI's, which reads bodies of any size in the event loop."""
        answer: Any = self.endpoint
        schema = typing.get_type_hints(answer)["body"]

        async def handle(request: Request) -> Response:
            response: Response = await answer(body=await read_body(request, schema), request=request)
            return response

        return handle


async def read_body(request: Request, schema: type[BaseModel]) -> Any:
    """The body of a request as ``schema``.

    Raises:
        RequestValidationError: it is not JSON, or not of the schema.
        RefusedError: it has too many parts.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise RequestValidationError([{"type": "model_type", "loc": ("body",), "msg": "", "input": None}])
    data = await request.body()
    if len(data) <= SMALL_BYTES:
        return _parse(data, schema)
    parts = sum(data.count(mark) for mark in (b"[", b"{", b","))
    if parts > MAX_PARTS:  # marks within texts count, too, of which prose has one in 40 characters
        raise RefusedError(
            f"the body has more than {MAX_PARTS} values", "Send several requests", code="request_too_large", status=413
        )
    return await asyncio.to_thread(_parse, data, schema)


def _parse(data: bytes, schema: type[BaseModel]) -> Any:
    try:
        value = json.loads(data)
    except json.JSONDecodeError as error:
        raise _not_json(error.pos, error.msg) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits, or nested too deeply
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise _not_json(0, said) from error
    if not isinstance(value, dict):
        raise RequestValidationError([{"type": "model_type", "loc": ("body",), "msg": "", "input": None}])
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in problems]) from error


def _not_json(position: int, said: str) -> RequestValidationError:
    return RequestValidationError(
        [{"type": "json_invalid", "loc": ("body", position), "msg": "", "input": None, "ctx": {"error": said}}]
    )
