"""The engine's own thread: requests of many asyncio tasks in one batch, their news back as it comes.

Only this thread touches the engine. Tasks leave submissions and aborts in an inbox, which is emptied between steps.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence

from herdlm.base.errors import HerdError
from herdlm.generate.engine import Engine
from herdlm.generate.request import Event, SamplingParams

log = logging.getLogger(__name__)


class EngineFailedError(HerdError):
    """The engine broke down, or was stopped; it answers nothing any more."""


class Generation:
    """Some prompts under way together. Iterate for (index of the prompt, event); call :meth:`close` in the end.

    The iteration ends after the last sample's last event and raises HerdError when the engine breaks down.
    """

    def __init__(
        self, loop: EngineLoop, requests: Sequence[tuple[Sequence[int], SamplingParams]], stream: bool
    ) -> None:
        self.requests, self.stream = requests, stream
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ids: dict[int, int] = {}  # of the engine's requests, and the index of each one's prompt
        self._loop = loop
        self._unfinished = sum(params.n for _, params in requests)
        self._news: asyncio.Queue[Event | Exception] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        while self._unfinished:
            event = await self._news.get()
            if isinstance(event, Exception):
                self._unfinished = 0
                raise event
            if event.completion:
                self._unfinished -= 1
            yield self.ids[event.request_id], event

    def close(self) -> None:
        """Drop what is unfinished and free what it held. Does no harm when all is finished."""
        if self._unfinished:
            self._unfinished = 0
            self._loop.drop(self)

    def receive(self, news: Event | Exception | None) -> None:
        """Take news from the engine's thread; None means that the prompts were accepted. Runs in the asyncio thread."""
        if not self.accepted.done():
            if isinstance(news, Exception):
                self.accepted.set_exception(news)
            else:
                self.accepted.set_result(None)
        elif news is not None:
            self._news.put_nowait(news)


News = list[tuple[Generation, Event | Exception | None]]


class EngineLoop:
    """Drives ``engine`` in a thread of its own, from :meth:`start` to :meth:`stop`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.failure: EngineFailedError | None = None
        self._inbox: deque[tuple[str, Generation]] = deque()
        self._changed = threading.Condition()
        self._running: dict[int, Generation] = {}  # by the engine's request id; the engine thread's own
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; call it inside the asyncio loop that will submit."""
        assert self._thread is None, "started once"
        self._asyncio = asyncio.get_running_loop()
        # A daemon, so that a second Ctrl-C ends the process in the middle of a step.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End the thread after its current step; what is still under way gets an error."""
        self._fail("the server is shutting down", "Ask again when it is back")
        if self._thread:
            await asyncio.to_thread(self._thread.join)

    async def submit(
        self, requests: Sequence[tuple[Sequence[int], SamplingParams]], *, stream: bool = True
    ) -> Generation:
        """Start prompts together, all or none. Without ``stream`` a sample is reported only when finished.

        Raises:
            InputError: a prompt or its parameters are at fault.
            EngineFailedError: the engine is not running.
        """
        generation = Generation(self, requests, stream)
        with self._changed:
            if self.failure:
                raise self._error()
            self._inbox.append(("submit", generation))
            self._changed.notify()
        try:
            await generation.accepted
        except asyncio.CancelledError:
            generation.close()
            raise
        return generation

    def drop(self, generation: Generation) -> None:
        """Abort what is left of a generation; see :meth:`Generation.close`."""
        with self._changed:
            if not self.failure:
                self._inbox.append(("drop", generation))
                self._changed.notify()

    def _fail(self, what: str, remedy: str) -> None:
        with self._changed:
            self.failure = self.failure or EngineFailedError(what, remedy)
            self._changed.notify()

    def _error(self) -> EngineFailedError:
        """The failure, as an error of its own for each that hears of it: raising one again and again lengthens it."""
        assert self.failure is not None
        return EngineFailedError(self.failure.what, self.failure.remedy)

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    while not (self._inbox or self.engine.busy or self.failure):
                        self._changed.wait()
                if self.failure:
                    break
                while self._inbox:
                    self._deliver(self._obey(*self._inbox[0]))
                    self._inbox.popleft()
                self._deliver(self._step())
        except BaseException as error:
            log.exception("the engine failed; the server answers nothing until it is started again")
            reason = str(error) or type(error).__name__
            self._fail(f"the engine failed: {reason}", "Start the server again; its log tells more")
        self._end()

    def _obey(self, what: str, generation: Generation) -> News:
        if what == "drop":
            for request_id in generation.ids:
                self._running.pop(request_id, None)
                self.engine.abort(request_id)
            return []
        try:
            for index, (prompt, params) in enumerate(generation.requests):
                generation.ids[self.engine.submit(prompt, params, stream=generation.stream)] = index
        except Exception as error:  # this request's fault, and nobody else's
            for request_id in generation.ids:
                self.engine.abort(request_id)
            return [(generation, error)]
        self._running |= dict.fromkeys(generation.ids, generation)
        return [(generation, None)]

    def _step(self) -> News:
        events = self.engine.step()
        news: News = [(self._running[event.request_id], event) for event in events]
        for event in events:
            if event.completion and event.request_id not in self.engine.requests:
                self._running.pop(event.request_id, None)
        return news

    def _end(self) -> None:
        """Tell everyone who still waits. No submission comes after: they look at ``failure`` under the same lock."""
        with self._changed:
            waiting = [*self._running.values(), *(generation for what, generation in self._inbox if what == "submit")]
            self._inbox.clear()
        for request_id in self._running:
            self.engine.abort(request_id)
        self._running.clear()
        self._deliver([(generation, self._error()) for generation in dict.fromkeys(waiting)])

    def _deliver(self, news: News) -> None:
        if news:
            self._asyncio.call_soon_threadsafe(_hand_over, news)


def _hand_over(news: News) -> None:
    for generation, item in news:
        generation.receive(item)
