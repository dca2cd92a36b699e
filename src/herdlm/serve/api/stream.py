"""Streams of server-sent events, and the cancellation of work when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from herdlm.serve.access.request_log import RequestRecord
from herdlm.serve.api.answers import Answer, Usage
from herdlm.serve.api.forms import Form
from herdlm.serve.errors import error_response
from herdlm.serve.workers.generation import Generation
from herdlm.serve.workers.protocol import SampleOutput

Result = TypeVar("Result")

PING_SECONDS = 15.0


class ClientLeftError(Exception):
    """The client closed its connection."""


class EventStream(StreamingResponse):
    """Streams an answer's chunks. Drops unfinished samples however the stream ends.

    Args:
        prompts, samples: number of prompts, and of samples per prompt; choices are numbered prompt by prompt.
        usage: holds the prompts' tokens; the stream adds the answers'.
        form: writes the chunks.
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
        form: Form,
        close: Callable[[], None],
    ) -> None:
        self.answer, self.generation, self.record = answer, generation, record
        self.prompts, self.samples, self.usage, self.form = prompts, samples, usage, form
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
        begun = [False] * (self.prompts * self.samples)
        try:
            async for output in _or_pings(aiter(self.generation)):
                if output is None:
                    yield self.form.ping
                    continue
                count_tokens(answer, output, usage, record)
                index = output.prompt * self.samples + output.sample
                # With the first token: clients measure the time until the first chunk.
                first = () if begun[index] else answer.first_chunks(index)
                begun[index] = True
                lines = [self._chunk(choice) for choice in (*first, *answer.chunks(index, output))]
                if lines:
                    yield "".join(lines)
            yield self.form.end(answer.chunk([]), usage)
        except Exception as error:  # the status has been sent, so the stream must carry the error
            response = error_response(error)
            record.error = response.code
            yield self.form.failed(response.body)

    def _chunk(self, choice: dict[str, Any]) -> str:
        return self.form.chunk(self.answer.chunk([choice]), self.usage)


async def _or_pings(outputs: AsyncIterator[SampleOutput]) -> AsyncIterator[SampleOutput | None]:
    """The outputs, and None whenever ``PING_SECONDS`` pass without one."""
    waiting: asyncio.Future[SampleOutput] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(outputs))
            done, _ = await asyncio.wait((waiting,), timeout=PING_SECONDS)
            if not done:
                yield None
                continue
            try:
                output = waiting.result()
            except StopAsyncIteration:
                return
            waiting = None
            yield output
    finally:
        if waiting:
            waiting.cancel()


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
