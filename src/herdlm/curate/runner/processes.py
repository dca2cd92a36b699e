"""Runs functions in processes of this machine, and reports which item a worker died on."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from herdlm.base.errors import HerdError
from herdlm.base.parent import end_with
from herdlm.curate.runner.interface import THREADS, TRIES, Item, Result, as_error, failure

AHEAD = 4  # results per worker that can wait for an earlier one


class ProcessRunner:
    """``workers`` processes, started when first needed and kept until the context ends."""

    def __init__(self, workers: int) -> None:
        self.count = workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> ProcessRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Implements :meth:`~herdlm.curate.runner.interface.Runner.map`."""
        results: dict[int, Any] = {}
        tries = [0] * len(items)
        to_do = iter(range(len(items)))
        again: list[int] = []
        given = yielded = 0
        busy: dict[_Worker, int] = {}
        try:
            while yielded < len(items):
                while given - yielded < self.count * (AHEAD + 1) and (again or given < len(items)):
                    if (worker := self._idle(busy)) is None:
                        break
                    number = again.pop() if again else next(to_do)
                    given = max(given, number + 1)
                    tries[number] += 1
                    busy[worker] = number
                    worker.give(function, items[number])
                for worker in _ready(busy):
                    number = busy.pop(worker)
                    answer = worker.take()
                    if answer is None:
                        self._workers.remove(worker)
                        if tries[number] >= TRIES:
                            raise _died(worker, items[number])
                        again.append(number)
                    elif "error" in answer:
                        raise as_error(answer["error"], items[number])
                    else:
                        results[number] = answer["result"]
                while yielded in results:
                    yield results.pop(yielded)
                    yielded += 1
        finally:
            for worker in busy:  # an error, or the caller stopped iterating
                worker.kill()
                if worker in self._workers:
                    self._workers.remove(worker)

    def _idle(self, busy: dict[_Worker, int]) -> _Worker | None:
        for worker in self._workers:
            if worker not in busy:
                return worker
        if len(self._workers) < self.count:
            self._workers.append(_Worker())
            return self._workers[-1]
        return None


def _ready(busy: dict[_Worker, int]) -> list[_Worker]:
    """Wait for and return the workers that have answered or died."""
    by_handle: dict[Any, _Worker] = {}
    for worker in busy:
        by_handle |= {worker.connection: worker, worker.process.sentinel: worker}
    return list({id(by_handle[handle]): by_handle[handle] for handle in wait(list(by_handle))}.values())


def _died(worker: _Worker, item: object) -> HerdError:
    code = worker.process.exitcode
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return HerdError(
        f"the worker on {item} died {TRIES} times ({how})",
        "It may have run out of memory: lower curate.workers or curate.max_page_bytes; finished shards are kept",
    )


class _Worker:
    """A process that works on one item at a time."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in THREADS}
        os.environ.update(THREADS)  # inherited; libraries read them when they load
        try:
            self.process = context.Process(target=_work, args=(theirs, os.getpid()), daemon=True)
            self.process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()

    def give(self, function: Callable[[Any], Any], item: Any) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it died: take() returns None
            self.connection.send((function, item))

    def take(self) -> dict[str, Any] | None:
        """Return its answer, or None if it died."""
        try:
            answer: dict[str, Any] = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return None
        return answer

    def end(self) -> None:
        self.connection.close()
        self.process.join(5)
        if self.process.is_alive():
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _work(connection: Connection, parent: int) -> None:
    """Run functions over items until the other end closes the connection."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles interrupts
    end_with(parent)
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    while True:
        try:
            function, item = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            answer = {"result": function(item)}
        except Exception as error:
            answer = {"error": failure(error, traceback.format_exc())}
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return
