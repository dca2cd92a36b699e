"""A worker process: one engine, driven over a socket.

The engine runs in the main thread. Another thread reads messages into an inbox, which is emptied between steps, and
answers the server's pings. Grammars are compiled in threads of their own before their requests come into the inbox, so
that one that takes long delays no other request. The outputs of a step leave as one line. The process ends when the
server closes the socket.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from herdlm.base.errors import HerdError, InputError, error_to_json
from herdlm.generate.embedding import embedding
from herdlm.generate.engine import Engine
from herdlm.generate.request import Event, params_from_json
from herdlm.generate.sequences import Request
from herdlm.serve.workers import protocol
from herdlm.serve.workers.model_text import engine_context
from herdlm.serve.workers.outputs import HeldOutputs
from herdlm.serve.workers.protocol import SampleOutput, WorkerInfo, WorkerOptions

log = logging.getLogger(__name__)

COMPILERS = 2  # grammars that are compiled at once


class Worker:
    """Serves one connection with ``engine`` until it closes.

    Args:
        on_close: called in the reading thread when the server is gone.
    """

    def __init__(self, engine: Engine, connection: socket.socket, on_close: Callable[[], None]) -> None:
        self.engine, self.connection = engine, connection
        self._on_close = on_close
        self._inbox: deque[dict[str, Any] | None] = deque()
        self._changed = threading.Condition()
        self._requests: dict[int, tuple[int, int, Request]] = {}  # by the engine's id: id, index of the prompt
        self._engine_ids: dict[int, list[int]] = {}
        self._embeddings: deque[EmbeddingJob] = deque()
        self._compiling: set[int] = set()  # requests whose grammars are being compiled
        self._compilers = ThreadPoolExecutor(COMPILERS, thread_name_prefix="grammar")
        self._sending = threading.Lock()
        self._held, self._unstreamed = HeldOutputs(), set[int]()

    def run(self) -> None:
        """Work until the connection closes. Reports what the engine raises to the server, then raises it."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        self._send({"ready": self._info()})
        try:
            while self._step():
                pass
        except BaseException as error:
            self._send({"broken": f"{type(error).__name__}: {error}"})
            raise

    def _step(self) -> bool:
        """Wait for work and do one step; false when the server is gone."""
        with self._changed:
            while not (self._inbox or self._embeddings or self.engine.busy):
                self._changed.wait()
        handled = False
        while self._inbox:
            message = self._inbox.popleft()
            if message is None:
                return False
            self._handle(message)
            handled = True
        if self._embeddings:
            self._advance_embedding()
        events = self.engine.step() if self.engine.busy else []
        if events or handled:
            rows = [row for event in events if (row := self._output(event))]
            self._send({"outputs": rows, "stats": self._stats()})
            for event in events:
                if event.completion and event.request_id not in self.engine.requests:
                    self._remove(event.request_id)
        return True

    def _read(self) -> None:
        try:
            with self.connection.makefile("rb") as lines:
                for text in lines:
                    self._receive(json.loads(text))
        except OSError as error:
            log.info("the server's connection broke: %s", error)
        self._enqueue(None)
        self._on_close()

    def _receive(self, message: dict[str, Any]) -> None:
        if message["op"] == "ping":
            self._send({"pong": True})
            return
        id: int = message["id"]
        if message["op"] == "submit" and any("grammar" in params for _, params in message["prompts"]):
            with self._changed:
                self._compiling.add(id)
            self._compilers.submit(self._compile, message)
        else:
            if message["op"] == "abort":
                with self._changed:
                    self._compiling.discard(id)
            self._enqueue(message)

    def _compile(self, message: dict[str, Any]) -> None:
        """Compile the grammars of a request, then hand it on, if the server still wants it."""
        try:
            for _, params in message["prompts"]:
                if message["id"] in self._compiling:
                    self.engine.prepare(params_from_json(params))
        except Exception as error:  # the engine tells the same error once more, in its place
            log.debug("a grammar cannot be used: %s", error)
        with self._changed:
            wanted = message["id"] in self._compiling
            self._compiling.discard(message["id"])
        if wanted:
            self._enqueue(message)

    def _enqueue(self, message: dict[str, Any] | None) -> None:
        with self._changed:
            self._inbox.append(message)
            self._changed.notify()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            with self._sending:
                self.connection.sendall(protocol.encode(message))
        except OSError:  # the server is gone; the reading thread notices too
            self._enqueue(None)

    def _handle(self, message: dict[str, Any]) -> None:
        id = message["id"]
        try:
            if message["op"] == "submit":
                self._submit(id, message)
                self._send({"accepted": id})
            elif message["op"] == "abort":
                self._abort(id)
            else:
                self._embeddings.append(EmbeddingJob(self.engine, id, message["prompts"]))
        except (HerdError, ValueError) as error:  # concerns this request only
            self._abort(id)
            self._send({"refused": id, "error": error_to_json(error)})

    def _submit(self, id: int, message: dict[str, Any]) -> None:
        self._engine_ids[id] = []
        for index, (prompt, params) in enumerate(message["prompts"]):
            sampling = params_from_json(params)
            if not message["stream"]:
                self._unstreamed.add(id)
            # The best of several are known at the end only.
            engine_id = self.engine.submit(prompt, sampling, stream=message["stream"] or sampling.best_of is None)
            self._engine_ids[id].append(engine_id)
            self._requests[engine_id] = (id, index, self.engine.requests[engine_id])

    def _abort(self, id: int) -> None:
        self._unstreamed.discard(id)
        self._held.forget(id)
        self._embeddings = deque(each for each in self._embeddings if each.id != id)
        for engine_id in self._engine_ids.pop(id, ()):
            self._requests.pop(engine_id, None)
            self.engine.abort(engine_id)

    def _output(self, event: Event) -> protocol.Row | None:
        id, index, request = self._requests[event.request_id]
        done = event.completion
        prompt = (done.prompt_logprobs, done.prompt_top_logprobs) if done else ()
        output = SampleOutput(
            index,
            event.sample,
            event.tokens,
            event.logprobs,
            event.top_logprobs,
            event.text,
            done.finish_reason if done else None,
            request.cached or 0,
            *prompt,
        )
        sent = self._held.take(id, output) if id in self._unstreamed else output
        return sent.row(id) if sent else None

    def _remove(self, engine_id: int) -> None:
        id, _, _ = self._requests.pop(engine_id, (None, 0, None))
        if id is not None:
            self._engine_ids[id].remove(engine_id)
            if not self._engine_ids[id]:
                del self._engine_ids[id]
                self._unstreamed.discard(id)

    def _advance_embedding(self) -> None:
        work = self._embeddings[0]
        work.advance()
        if work.finished:
            self._embeddings.popleft()
            self._send({"done": work.id, "results": work.results})

    def _stats(self) -> protocol.Row:
        scheduler, pool = self.engine.scheduler, self.engine.pool
        running = int((scheduler.sequences.state != 0).sum())
        waiting = sum(len(bunch.samples) for bunch in scheduler.waiting)
        held = pool.count - pool.available
        return [running, waiting, held, pool.count, scheduler.preemptions, scheduler.reused_tokens]

    def _info(self) -> dict[str, Any]:
        return asdict(WorkerInfo(engine_context(self.engine), memory_bytes(self.engine)))


def memory_bytes(engine: Engine) -> int:
    """Bytes of host and GPU memory of ``engine`` with a full cache, counting each process like this one."""
    try:
        resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: the peak, in KiB
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if engine.device.type == "cuda":
        return engine.processes * (resident + torch.cuda.memory_allocated(engine.device))
    # The system allocates the cache's pages when they are first written.
    return engine.processes * (resident + engine.cache_bytes)


class EmbeddingJob:
    """Embeds prompts one at a time, so that the engine's steps run between them.

    Raises:
        InputError: a prompt does not fit the model.
    """

    def __init__(self, engine: Engine, id: int, prompts: list[list[int]]) -> None:
        self.engine, self.id, self.prompts = engine, id, prompts
        self.results: list[list[float]] = []
        vocabulary, longest = engine.config.vocab_size, engine.config.max_seq_len
        for prompt in prompts:
            if not prompt or min(prompt) < 0 or max(prompt) >= vocabulary:
                raise InputError(
                    f"a prompt is empty or holds token ids outside 0 to {vocabulary - 1}", "Use the model's tokenizer"
                )
            if len(prompt) > longest:
                raise InputError(f"a prompt of {len(prompt)} tokens exceeds the context of {longest}", "Shorten it")

    @property
    def finished(self) -> bool:
        """Whether every prompt has its result."""
        return len(self.results) == len(self.prompts)

    def advance(self) -> None:
        """Embed the next prompt."""
        self.results.append(embedding(self.engine.model, self.prompts[len(self.results)]))


def serve_connection(
    connection: socket.socket, load: Callable[[WorkerOptions], Engine], on_close: Callable[[], None]
) -> None:
    """Load what the connection's first line asks for, then serve the connection until it closes.

    Args:
        on_close: see :class:`Worker`.
    """
    options = b""
    while not options.endswith(b"\n"):  # byte by byte: the rest belongs to the worker
        options += (byte := connection.recv(1))
        if not byte:
            return
    try:
        engine = load(WorkerOptions(**json.loads(options)))
    except Exception as error:
        if not isinstance(error, HerdError):
            log.exception("the model could not be loaded")
        connection.sendall(protocol.encode({"failed": error_to_json(error)}))
        return
    Worker(engine, connection, on_close).run()


def main(descriptor: int) -> None:
    """Serve the connection of a file descriptor in this process."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the server drains first, then closes the socket
        signal.signal(number, signal.SIG_IGN)
    # Nobody waits for the running step when the server is gone.
    serve_connection(socket.socket(fileno=descriptor), load_engine, on_close=lambda: os._exit(0))


def load_engine(options: WorkerOptions) -> Engine:
    """Load the engine.

    Raises:
        InputError, DamagedError: the model is unusable, or an option is wrong.
    """
    return Engine.load(
        Path(options.folder),
        device=options.device,
        dtype=options.dtype,
        cache_tokens=options.cache_tokens,
        tensor_parallel=options.tensor_parallel,
        pipeline_parallel=options.pipeline_parallel,
    )


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    main(int(sys.argv[1]))
