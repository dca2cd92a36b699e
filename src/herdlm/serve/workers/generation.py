"""A request under way in a worker, as the asyncio side sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from herdlm.base.errors import HerdError
from herdlm.serve.workers.protocol import SampleOutput


class WorkerFailedError(HerdError):
    """The worker that had the request is gone; the request may be sent again.

    Args:
        retry_after: seconds until a new worker is likely to answer.
    """

    def __init__(self, what: str, remedy: str = "", *, retry_after: float = 1) -> None:
        super().__init__(what, remedy)
        self.retry_after = retry_after


class TooLongError(HerdError):
    """The answer took longer than a request may."""


class Generation:
    """Some prompts under way together. Iterate for output; call :meth:`close` in the end.

    The iteration ends after the last sample's last output and raises HerdError when the worker breaks down or the time
    is up.
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
        """Fail with TooLongError when it is not finished in so many seconds."""
        error = TooLongError("the request took longer than this server allows", "PromptRequest for fewer tokens")
        self._timer = asyncio.get_running_loop().call_later(max(seconds, 0), self.fail, error)

    def close(self) -> None:
        """Drop what is unfinished and free what it held. Does no harm when all is finished."""
        if self._timer:
            self._timer.cancel()
        unfinished, self._unfinished = self._unfinished, 0
        if unfinished:
            self._on_drop(self)

    @property
    def finished(self) -> bool:
        """Whether the worker has told all, whatever of it was read."""
        return not self._pending

    def accept(self) -> None:
        """The worker has taken the request."""
        if not self.accepted.done():
            self.accepted.set_result(None)

    def fail(self, error: Exception) -> None:
        """The request ends with ``error``."""
        if self.accepted.done():
            self._outputs.put_nowait(error)
        else:
            self.accepted.set_exception(error)

    def receive(self, output: SampleOutput) -> None:
        """Take output of one sample."""
        self._pending -= output.finish_reason is not None
        self._outputs.put_nowait(output)


class EmbeddingRequest:
    """EmbeddingRequest under way: ``await`` their :attr:`results`, one vector a prompt."""

    def __init__(self) -> None:
        self.results: asyncio.Future[list[list[float]]] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        """The work ends with ``error``."""
        if not self.results.done():
            self.results.set_exception(error)

    def finish(self, results: list[list[float]]) -> None:
        """The work is done."""
        if not self.results.done():
            self.results.set_result(results)
