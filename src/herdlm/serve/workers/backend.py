"""The server's side of one worker process: starts it on demand and restarts it when it dies.

The requests of a worker that dies fail with WorkerFailedError, and a new worker serves the next ones. When workers keep
dying, each restart waits longer. A worker that answers no ping is stopped or hangs: it is killed.
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

from herdlm.base.errors import HerdError, error_from_json
from herdlm.generate.request import SamplingParams, params_to_json
from herdlm.serve.errors import WorkerFailedError
from herdlm.serve.workers import protocol
from herdlm.serve.workers.generation import EmbeddingRequest, Generation
from herdlm.serve.workers.protocol import EngineStats, SampleOutput, WorkerInfo, WorkerOptions

log = logging.getLogger(__name__)

MAX_LINE = 2**30
STABLE_SECONDS = 60  # a worker that lived longer did not die of its start
MAX_PAUSE = 30.0
PING_SECONDS = 5.0
SILENT_SECONDS = 60.0  # a worker that says nothing for so long is killed

Prompts = Sequence[tuple[Sequence[int], SamplingParams]]


class Process(Protocol):
    """The process of a launched worker."""

    pid: int

    def kill(self) -> None:
        """Kill it."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns the exit code."""


Launch = Callable[[socket.socket], Process]


def launch_process(connection: socket.socket) -> Process:
    """Start a worker process that does not receive the terminal's Ctrl-C, since the server drains first."""
    descriptor = connection.fileno()
    command = [sys.executable, "-m", "herdlm.serve.workers.worker", str(descriptor)]
    return subprocess.Popen(  # noqa: S603 - our own module
        command, pass_fds=[descriptor], stdin=subprocess.DEVNULL, start_new_session=True
    )


class Backend:
    """The worker of one model. Call all methods in the asyncio thread.

    Args:
        launch: starts a worker that serves one end of a socket pair.

    Attributes:
        info: what the worker last reported of its model; None before the first start.
        stats: the engine's counters after its last step.
        restarts: workers started after a crash.
    """

    def __init__(self, name: str, options: WorkerOptions, launch: Launch = launch_process) -> None:
        self.name, self.options, self.launch = name, options, launch
        self.info: WorkerInfo | None = None
        self.stats = EngineStats()
        self.restarts = 0
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._restarting: asyncio.Task[None] | None = None
        self._in_flight: dict[int, Generation | EmbeddingRequest] = {}
        self._ids = 0
        self._deaths = 0
        self._started_at = self._heard_at = 0.0
        self._watching: asyncio.Task[None] | None = None
        self._not_before = 0.0

    @property
    def ready(self) -> bool:
        """Whether a worker is connected."""
        return self._writer is not None

    @property
    def pid(self) -> int | None:
        """The worker's process id, if there is a worker."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the worker unless it is ready; waits for a running start.

        Raises:
            InputError, HerdError: the model cannot be loaded.
            WorkerFailedError: the worker keeps dying, and the pause before the next try is not over.
        """
        async with self._starting:
            if self.ready:
                return
            pause = self._not_before - time.monotonic()
            if pause > 0:
                raise WorkerFailedError(
                    f"the worker of {self.name} keeps failing", "See the server's log", retry_after=pause
                )
            await self._start()

    async def stop(self) -> None:
        """Stop the worker. Its requests fail."""
        for task in (self._restarting, self._watching):
            if task:
                task.cancel()
        writer, process, reading = self._writer, self._process, self._reading
        self._writer = self._process = self._reading = None
        self.stats = EngineStats()
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

    def fail_all(self, what: str, remedy: str = "Retry when it is back") -> None:
        """Fail all running requests."""
        for id, work in list(self._in_flight.items()):
            work.fail(WorkerFailedError(what, remedy))
            self._send({"op": "abort", "id": id})
        self._in_flight.clear()

    async def submit(self, prompts: Prompts, *, stream: bool = True) -> Generation:
        """Submit all prompts or none. Without ``stream`` samples report twice a second, and when they are finished.

        Raises:
            InputError: a prompt or its parameters are invalid.
            WorkerFailedError: the worker died or cannot be started.
        """
        await self.start()
        id = self._next_id()
        generation = Generation(sum(params.n for _, params in prompts), lambda _: self._drop(id))
        self._in_flight[id] = generation
        rows = [(list(tokens), params_to_json(params)) for tokens, params in prompts]
        self._send({"op": "submit", "id": id, "stream": stream, "prompts": rows})
        try:
            await generation.accepted
        except asyncio.CancelledError:
            generation.close()
            raise
        return generation

    async def embed(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """A vector of length 1 for each prompt; see :func:`herdlm.generate.embedding.embedding`."""
        await self.start()
        id, work = self._next_id(), EmbeddingRequest()
        self._in_flight[id] = work
        self._send({"op": "embed", "id": id, "prompts": prompts})
        try:
            return await work.results
        finally:
            self._drop(id)

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    def _drop(self, id: int) -> None:
        if self._in_flight.pop(id, None) is not None:
            self._send({"op": "abort", "id": id})

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer:
            self._writer.write(protocol.encode(message))

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._started_at = time.monotonic()
        try:
            with theirs:
                process = self.launch(theirs)
            reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE)
        except BaseException:
            ours.close()
            raise
        try:
            writer.write(protocol.encode(self.options.to_json()))
            self.info = await self._handshake(reader)
        except BaseException as error:
            writer.close()
            process.kill()
            await asyncio.to_thread(process.wait)
            if isinstance(error, WorkerFailedError):
                self._count_death()
            raise
        self._process, self._writer = process, writer
        self._heard_at = time.monotonic()
        self._reading = asyncio.create_task(self._read(reader, process))
        self._watching = asyncio.create_task(self._watch(process))

    async def _handshake(self, reader: asyncio.StreamReader) -> WorkerInfo:
        text = await reader.readline()
        if not text:
            raise WorkerFailedError(f"the worker of {self.name} ended while it loaded the model")
        first = json.loads(text)
        if "failed" in first:
            raise error_from_json(first["failed"])
        return WorkerInfo(**first["ready"])

    async def _read(self, reader: asyncio.StreamReader, process: Process) -> None:
        reason = ""
        try:
            while text := await reader.readline():
                self._heard_at = time.monotonic()
                message = json.loads(text)
                reason = message.get("broken", reason)
                self._receive(message)
        except OSError as error:  # the process ended
            log.info("the connection to the worker of %s broke: %s", self.name, error)
        except ValueError as error:
            reason = f"it sent an invalid message: {error}"
        process.kill()
        code = await asyncio.to_thread(process.wait)
        if process is not self._process:  # stopped on purpose
            return
        self._worker_died(reason or (f"ended by signal {-code}" if code < 0 else f"ended with code {code}"))

    async def _watch(self, process: Process) -> None:
        """Kill the worker once it is silent for long."""
        while process is self._process:
            self._send({"op": "ping"})
            await asyncio.sleep(PING_SECONDS)
            if process is self._process and time.monotonic() - self._heard_at > SILENT_SECONDS:
                log.error("the worker of %s has not answered for %g s: it is killed", self.name, SILENT_SECONDS)
                process.kill()
                return

    def _receive(self, message: dict[str, Any]) -> None:
        if "outputs" in message:
            self.stats = EngineStats(*message["stats"])
            for id, *row in message["outputs"]:
                work = self._in_flight.get(id)  # None if it was dropped meanwhile
                if isinstance(work, Generation):
                    work.receive(SampleOutput(*row))
                    if work.finished:
                        del self._in_flight[id]
        elif "accepted" in message:
            if isinstance(work := self._in_flight.get(message["accepted"]), Generation):
                work.accept()
        elif "refused" in message:
            if work := self._in_flight.pop(message["refused"], None):
                work.fail(error_from_json(message["error"]))
        elif "done" in message and isinstance(work := self._in_flight.pop(message["done"], None), EmbeddingRequest):
            work.finish(message["results"])

    def _worker_died(self, reason: str) -> None:
        log.error("the worker of %s failed: %s", self.name, reason)
        if self._writer:
            self._writer.close()
        if self._watching:
            self._watching.cancel()
        self._process = self._writer = self._reading = None
        self.stats = EngineStats()
        self._count_death()
        self.fail_all(f"the worker of {self.name} failed: {reason}", "Send the request again")
        self._restarting = asyncio.create_task(self._restart())

    def _count_death(self) -> None:
        lived = time.monotonic() - self._started_at
        self._deaths = 0 if lived > STABLE_SECONDS else self._deaths + 1
        pause = min(2.0 ** (self._deaths - 2), MAX_PAUSE) if self._deaths > 1 else 0.0
        self._not_before = time.monotonic() + pause

    async def _restart(self) -> None:
        await asyncio.sleep(max(self._not_before - time.monotonic(), 0))
        self.restarts += 1
        try:
            await self.start()
        except HerdError as error:
            log.error("the worker of %s could not be started: %s", self.name, error)  # noqa: TRY400 - a traceback adds nothing
