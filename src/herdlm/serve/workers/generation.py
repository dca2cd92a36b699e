"""A request running in a worker, as the asyncio side sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from herdlm.serve.errors import TooLongError
from herdlm.serve.workers.protocol import SampleOutput


class Generation:
    """The prompts of one request. Iterate for its outputs and call :meth:`close` at the end.

    The iteration ends after the last output of the last sample. It raises HerdError if the worker fails
    or the time is up.
    """

    def __init__(self, samples: int, on_drop: Callable[[Generation], None]) -> None:
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unfinished = samples
        self._pending = samples
        self._on_drop = on_drop
        self._timer: asyncio.TimerHandle | None = None
        self._outputs: asyncio.Queue[SampleOutput | Exception] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[SampleOutput]:
        while self._unfinished:
            output = await self._outputs.get()
            if isinstance(output, Exception):
                self.close()
                raise output
            if output.finish_reason:
                self._unfinished -= 1
            yield output

    def set_deadline(self, seconds: float) -> None:
        """Fail with TooLongError unless the request finishes in ``seconds``."""
        error = TooLongError("the request took longer than this server allows", "Ask for fewer tokens")
        self._timer = asyncio.get_running_loop().call_later(max(seconds, 0), self.fail, error)

    def close(self) -> None:
        """Drop unfinished samples and free what they hold. Does nothing if all are finished."""
        if self._timer:
            self._timer.cancel()
        unfinished, self._unfinished = self._unfinished, 0
        if unfinished:
            self._on_drop(self)

    @property
    def finished(self) -> bool:
        """Whether the worker has sent every output, read or not."""
        return not self._pending

    def accept(self) -> None:
        """Note that the worker has accepted the request."""
        if not self.accepted.done():
            self.accepted.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the request with ``error``."""
        if self.accepted.done():
            self._outputs.put_nowait(error)
        else:
            self.accepted.set_exception(error)

    def receive(self, output: SampleOutput) -> None:
        """Queue an output of one sample."""
        self._pending -= output.finish_reason is not None
        self._outputs.put_nowait(output)


class EmbeddingRequest:
    """A running request for embeddings. Await :attr:`results`, one vector per prompt."""

    def __init__(self) -> None:
        self.results: asyncio.Future[list[list[float]]] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        """End the request with ``error``."""
        if not self.results.done():
            self.results.set_exception(error)

    def finish(self, results: list[list[float]]) -> None:
        """End the request with its results."""
        if not self.results.done():
            self.results.set_result(results)
