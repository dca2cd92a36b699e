"""Streams of server-sent events, and the cancellation of work when the client disconnects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from herdlm.serve.access.request_log import RequestRecord
from herdlm.serve.api.answers import Answer, Usage
from herdlm.serve.errors import error_response
from herdlm.serve.workers.generation import Generation
from herdlm.serve.workers.protocol import SampleOutput

Result = TypeVar("Result")


class ClientLeftError(Exception):
    """The client closed its connection."""


class EventStream(StreamingResponse):
    """Streams an answer's chunks. Drops unfinished samples however the stream ends.

    Args:
        prompts, samples: number of prompts, and of samples per prompt; choices are numbered prompt by prompt.
        usage: holds the prompts' tokens; the stream adds the answers'.
        include_usage: send the usage in a last chunk.
        close: releases what the request holds.
    """

    def __init__(
        self,
        answer: Answer,
        generation: Generation,
        record: RequestRecord,
        *,
        prompts: int,
        samples: int,
        usage: Usage,
        include_usage: bool,
        close: Callable[[], None],
    ) -> None:
        self.answer, self.generation, self.record = answer, generation, record
        self.prompts, self.samples, self.usage, self.include_usage = prompts, samples, usage, include_usage
        self._close = close
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # proxies must not buffer
        super().__init__(self._lines(), headers=headers, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.generation.close()
            self._close()

    async def _lines(self) -> AsyncIterator[str]:
        answer, usage, record = self.answer, self.usage, self.record
        try:
            for index in range(self.prompts * self.samples):
                for choice in answer.first_chunks(index):
                    yield self._chunk(choice)
            async for output in self.generation:
                count_tokens(answer, output, usage, record)
                lines = [self._chunk(c) for c in answer.chunks(output.prompt * self.samples + output.sample, output)]
                if lines:
                    yield "".join(lines)
            if self.include_usage:
                yield _line(answer.chunk([]) | {"usage": usage.to_json()})
            yield "data: [DONE]\n\n"
        except Exception as error:  # the status has been sent, so the stream must carry the error
            response = error_response(error)
            record.error = response.code
            yield _line(response.body)

    def _chunk(self, choice: dict[str, Any]) -> str:
        return _line(self.answer.chunk([choice]) | ({"usage": None} if self.include_usage else {}))


def count_tokens(answer: Answer, output: SampleOutput, usage: Usage, record: RequestRecord) -> None:
    """Add an output's tokens to the counts of its request."""
    usage.completion_tokens += answer.completion_tokens(output)
    record.add_completion(answer.completion_tokens(output))
    if output.finish_reason and output.sample == 0:  # once per prompt: its samples share the cache
        usage.cached_tokens += output.cached_tokens
        record.cached_tokens += output.cached_tokens


async def unless_client_leaves(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Await ``work``, and cancel it if the client disconnects.

    Raises:
        ClientLeftError: the client disconnected.
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


def _line(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, allow_nan=False, ensure_ascii=False)}\n\n"
