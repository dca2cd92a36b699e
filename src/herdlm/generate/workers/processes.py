"""Workers as processes of this machine. Requests and answers travel as JSON."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from herdlm.base.errors import HerdError, error_from_json, error_to_json
from herdlm.base.parent import end_with
from herdlm.generate.workers.worker import Finished, Load, Request, WorkerConfig


class ProcessWorkers:
    """``count`` processes with an engine each, which share the machine's cores and GPUs."""

    def __init__(self, config: WorkerConfig, count: int, load: Load) -> None:
        self.count, self._load = count, load
        threads = config.threads or max(len(os.sched_getaffinity(0)) // count, 1)
        self._configs = [replace(config, threads=threads, device=_device(config, i)) for i in range(count)]
        self._workers: list[_Worker] = []

    def __enter__(self) -> ProcessWorkers:
        self._workers = [_Worker(config, self._load) for config in self._configs]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.kill()

    def submit(self, worker: int, requests: Sequence[Request]) -> None:
        """See :class:`~herdlm.generate.workers.pool.Workers`."""
        with suppress(BrokenPipeError, ConnectionResetError):  # it died; poll reports that
            self._workers[worker].connection.send_bytes(json.dumps(requests).encode())

    def poll(self) -> list[tuple[int, list[Finished] | None]]:
        """See :class:`~herdlm.generate.workers.pool.Workers`."""
        numbers = {worker.connection: number for number, worker in enumerate(self._workers)}
        finished: list[tuple[int, list[Finished] | None]] = []
        for connection in wait(list(numbers)):
            number = numbers[connection]  # type: ignore[index]
            try:
                message = json.loads(self._workers[number].connection.recv_bytes())
            except (EOFError, ConnectionResetError):
                self._workers[number].kill()
                self._workers[number] = _Worker(self._configs[number], self._load)
                finished.append((number, None))
                continue
            if "error" in message:
                raise error_from_json(message["error"])
            finished.append((number, [(n, answer) for n, answer in message["answers"]]))
        return finished


class _Worker:
    def __init__(self, config: WorkerConfig, load: Load) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_worker_main, args=(theirs, load, asdict(config), os.getpid()), daemon=True
        )
        self.process.start()
        theirs.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _worker_main(connection: Connection, load: Load, config: dict[str, Any], parent: int) -> None:
    """The main loop of a worker: receives requests and sends answers until the other end closes."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles interrupts
    end_with(parent)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            worker = load(WorkerConfig(**config))
        except HerdError as error:
            connection.send_bytes(json.dumps({"error": error_to_json(error)}).encode())
            return
        connection.send_bytes(json.dumps({"answers": []}).encode())
        while True:
            answers = worker.work(json.loads(connection.recv_bytes()))
            connection.send_bytes(json.dumps({"answers": answers}).encode())


def _device(config: WorkerConfig, number: int) -> str:
    """A worker's GPU, or the first of its GPUs if it has several processes."""
    if config.device not in {"auto", "cuda"}:
        return config.device
    import torch

    groups = torch.cuda.device_count() // config.processes
    return f"cuda:{number % groups * config.processes}" if groups else config.device
