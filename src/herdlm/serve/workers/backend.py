"""One model's worker process from the server's side: started when needed, started anew when it dies.

A worker that dies takes only its own requests with it: they fail with WorkerFailedError, and the next request finds a
new worker. Where workers die again and again, each new one waits longer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from herdlm.base.errors import HerdError
from herdlm.generate.request import SamplingParams
from herdlm.serve.workers import protocol as wire
from herdlm.serve.workers.generation import Embeddings, Generation, WorkerFailedError
from herdlm.serve.workers.protocol import EngineState, News, WorkerOptions

log = logging.getLogger(__name__)

LONGEST_LINE = 2**30
STEADY_SECONDS = 60  # a worker that lived so long did not die of its start
LONGEST_PAUSE = 30.0

Prompts = Sequence[tuple[Sequence[int], SamplingParams]]


class Process(Protocol):
    """What a launched worker runs in."""

    pid: int

    def kill(self) -> None:
        """End it at once."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended."""


Launch = Callable[[socket.socket], Process]


def launch_process(connection: socket.socket) -> Process:
    """A worker in a new process, away from the terminal's Ctrl-C: the server drains first."""
    descriptor = connection.fileno()
    command = [sys.executable, "-m", "herdlm.serve.workers.worker", str(descriptor)]
    return subprocess.Popen(  # noqa: S603 - ourselves
        command, pass_fds=[descriptor], stdin=subprocess.DEVNULL, start_new_session=True
    )


class Backend:
    """The worker of one model. All methods belong to the asyncio thread.

    Args:
        launch: starts a worker that serves one end of a socket pair.

    Attributes:
        told: what the worker said of its model: context in tokens, bytes of weights and cache.
        state: the engine's, after its last step.
        restarts: workers started after another had died.
    """

    def __init__(self, name: str, options: WorkerOptions, launch: Launch = launch_process) -> None:
        self.name, self.options, self.launch = name, options, launch
        self.told: dict[str, Any] = {}
        self.state = EngineState()
        self.restarts = 0
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._restart: asyncio.Task[None] | None = None
        self._underway: dict[int, Generation | Embeddings] = {}
        self._ids = 0
        self._deaths = 0
        self._started_at = 0.0
        self._not_before = 0.0

    @property
    def ready(self) -> bool:
        """Whether a worker answers."""
        return self._writer is not None

    @property
    def pid(self) -> int | None:
        """The worker's process, where there is one."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Have a worker that is ready; waits for the one being started, if any.

        Raises:
            InputError, HerdError: the model cannot be loaded.
            WorkerFailedError: it died lately, and it is too early to try again.
        """
        async with self._starting:
            if self.ready:
                return
            pause = self._not_before - time.monotonic()
            if pause > 0:
                raise WorkerFailedError(
                    f"the worker of {self.name} keeps failing", "The server's log tells more", retry_after=pause
                )
            await self._start()

    async def stop(self) -> None:
        """End the worker; what it was doing fails."""
        if self._restart:
            self._restart.cancel()
        writer, process, reading = self._writer, self._process, self._reading
        self._writer = self._process = self._reading = None
        self.state = EngineState()
        self.fail_all(f"the server has stopped {self.name}")
        if reading:
            reading.cancel()
        if writer:
            writer.close()
        if process:
            try:
                await asyncio.to_thread(process.wait, 5)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)

    def fail_all(self, what: str, remedy: str = "Ask again when it is back") -> None:
        """Fail all that is under way."""
        for id, work in list(self._underway.items()):
            work.fail(WorkerFailedError(what, remedy))
            self._send({"do": "drop", "id": id})
        self._underway.clear()

    async def submit(self, prompts: Prompts, *, stream: bool = True) -> Generation:
        """Start prompts together, all or none. Without ``stream`` a sample is reported only when finished.

        Raises:
            InputError: a prompt or its parameters are at fault.
            WorkerFailedError: there is no worker, or it died.
        """
        await self.start()
        id = self._next_id()
        generation = Generation(sum(params.n for _, params in prompts), lambda _: self._forget(id))
        self._underway[id] = generation
        rows = [(list(tokens), wire.params_row(params)) for tokens, params in prompts]
        self._send({"do": "submit", "id": id, "stream": stream, "prompts": rows})
        try:
            await generation.accepted
        except asyncio.CancelledError:
            generation.close()
            raise
        return generation

    async def embed(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """A vector of length 1 for each prompt; see :func:`herdlm.generate.embedding.embedding`."""
        await self.start()
        id, work = self._next_id(), Embeddings()
        self._underway[id] = work
        self._send({"do": "embed", "id": id, "prompts": prompts})
        try:
            return await work.results
        finally:
            self._forget(id)

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    def _forget(self, id: int) -> None:
        if self._underway.pop(id, None) is not None:
            self._send({"do": "drop", "id": id})

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer:
            self._writer.write(wire.line(message))

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._started_at = time.monotonic()
        try:
            with theirs:
                process = self.launch(theirs)
            reader, writer = await asyncio.open_connection(sock=ours, limit=LONGEST_LINE)
        except BaseException:
            ours.close()
            raise
        try:
            writer.write(wire.line(self.options.told()))
            self.told = await self._greeting(reader)
        except BaseException as error:
            writer.close()
            process.kill()
            await asyncio.to_thread(process.wait)
            if isinstance(error, WorkerFailedError):
                self._count_death()
            raise
        self._process, self._writer = process, writer
        self._reading = asyncio.create_task(self._read(reader, process))

    async def _greeting(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        text = await reader.readline()
        if not text:
            raise WorkerFailedError(f"the worker of {self.name} ended while it loaded the model")
        first = json.loads(text)
        if "failed" in first:
            raise wire.error_of(first["failed"])
        ready: dict[str, Any] = first["ready"]
        return ready

    async def _read(self, reader: asyncio.StreamReader, process: Process) -> None:
        reason = ""
        try:
            while text := await reader.readline():
                message = json.loads(text)
                reason = message.get("broken", reason)
                self._take(message)
        except OSError as error:  # how the end of a process looks from here
            log.info("the connection to the worker of %s broke: %s", self.name, error)
        except ValueError as error:
            reason = f"it said what is no message: {error}"
        process.kill()
        code = await asyncio.to_thread(process.wait)
        if process is not self._process:  # stopped on purpose meanwhile
            return
        self._lost(reason or (f"ended by signal {-code}" if code < 0 else f"ended with code {code}"))

    def _take(self, message: dict[str, Any]) -> None:
        if "news" in message:
            self.state = EngineState(*message["state"])
            for id, *row in message["news"]:
                work = self._underway.get(id)  # none where it was dropped meanwhile
                if isinstance(work, Generation):
                    work.receive(News(*row))
                    if work.finished:
                        del self._underway[id]
        elif "accepted" in message:
            if isinstance(work := self._underway.get(message["accepted"]), Generation):
                work.accept()
        elif "refused" in message:
            if work := self._underway.pop(message["refused"], None):
                work.fail(wire.error_of(message["error"]))
        elif "done" in message and isinstance(work := self._underway.pop(message["done"], None), Embeddings):
            work.finish(message["results"])

    def _lost(self, reason: str) -> None:
        log.error("the worker of %s failed: %s", self.name, reason)
        if self._writer:
            self._writer.close()
        self._process = self._writer = self._reading = None
        self.state = EngineState()
        self._count_death()
        self.fail_all(f"the worker of {self.name} failed: {reason}", "Send the request again")
        self._restart = asyncio.create_task(self._start_anew())

    def _count_death(self) -> None:
        lived = time.monotonic() - self._started_at
        self._deaths = 0 if lived > STEADY_SECONDS else self._deaths + 1
        pause = min(2.0 ** (self._deaths - 2), LONGEST_PAUSE) if self._deaths > 1 else 0.0
        self._not_before = time.monotonic() + pause

    async def _start_anew(self) -> None:
        await asyncio.sleep(max(self._not_before - time.monotonic(), 0))
        self.restarts += 1
        try:
            await self.start()
        except HerdError as error:
            log.error("the worker of %s could not be started: %s", self.name, error)  # noqa: TRY400 - it says all
