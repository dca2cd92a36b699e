"""Answers while they grow: server-sent events, and what happens when the client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from herdlm.serve.answers import Answer, Usage
from herdlm.serve.failures import failure_of
from herdlm.serve.loop import Generation

Result = TypeVar("Result")


class ClientLeftError(Exception):
    """Nobody waits for the answer any more."""


class EventStream(StreamingResponse):
    """A stream of an answer's chunks. However it ends, what was still under way is dropped.

    Args:
        samples: per prompt; choices are numbered prompt after prompt.
        usage: holds the prompts' tokens, counts the answers' and is told in the last chunk; None to tell none.
    """

    def __init__(self, answer: Answer, generation: Generation, *, samples: int, usage: Usage | None) -> None:
        self.generation = generation
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # proxies pass each event on at once
        super().__init__(_lines(answer, generation, samples, usage), headers=headers, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.generation.close()


async def unless_client_leaves(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of ``work``, which is cancelled when the client closes its connection.

    Raises:
        ClientLeftError: it did.
    """
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_leaving(request))
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeftError
        return task.result()
    finally:
        task.cancel()
        left.cancel()


async def _leaving(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _lines(answer: Answer, generation: Generation, samples: int, usage: Usage | None) -> AsyncIterator[str]:
    try:
        for index in range(len(generation.requests) * samples):
            for choice in answer.opening(index):
                yield _line(_chunk(answer, [choice], usage))
        async for prompt, event in generation:
            if usage:
                usage.completion_tokens += len(event.logprobs)
            for choice in answer.news(prompt * samples + event.sample, event):
                yield _line(_chunk(answer, [choice], usage))
        if usage:
            yield _line(answer.chunk([]) | {"usage": usage.told()})
        yield "data: [DONE]\n\n"
    except Exception as error:  # the status has been sent: the stream itself must tell
        yield _line(failure_of(error)[1])


def _chunk(answer: Answer, choices: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
    return answer.chunk(choices) | ({"usage": None} if usage else {})


def _line(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, allow_nan=False, ensure_ascii=False)}\n\n"
