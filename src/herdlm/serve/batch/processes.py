"""Workers as processes of this machine. Prompts and answers travel as JSON."""

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

from herdlm.base.errors import HerdError
from herdlm.base.parent import end_with
from herdlm.serve.batch.prompts import Ask
from herdlm.serve.batch.worker import Answered, EngineWorker, Setting, as_told, rethrown


class ProcessWorkers:
    """``count`` processes, each with an engine; the cores are shared out between them, and so are GPUs."""

    def __init__(self, setting: Setting, count: int) -> None:
        self.count = count
        threads = setting.threads or max(len(os.sched_getaffinity(0)) // count, 1)
        self._settings = [replace(setting, threads=threads, device=_device(setting, i)) for i in range(count)]
        self._workers: list[_Worker] = []

    def __enter__(self) -> ProcessWorkers:
        self._workers = [_Worker(setting) for setting in self._settings]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.kill()

    def give(self, worker: int, asks: Sequence[Ask]) -> None:
        """See :class:`~herdlm.serve.batch.run.Workers`."""
        with suppress(BrokenPipeError, ConnectionResetError):  # it died; news will tell
            self._workers[worker].connection.send_bytes(json.dumps(asks).encode())

    def news(self) -> list[tuple[int, list[Answered] | None]]:
        """See :class:`~herdlm.serve.batch.run.Workers`."""
        numbers = {worker.connection: number for number, worker in enumerate(self._workers)}
        found: list[tuple[int, list[Answered] | None]] = []
        for connection in wait(list(numbers)):
            number = numbers[connection]  # type: ignore[index]
            try:
                told = json.loads(self._workers[number].connection.recv_bytes())
            except (EOFError, ConnectionResetError):
                self._workers[number].kill()
                self._workers[number] = _Worker(self._settings[number])
                found.append((number, None))
                continue
            if "error" in told:
                raise rethrown(told["error"])
            found.append((number, [(n, answer) for n, answer in told["answers"]]))
        return found


class _Worker:
    def __init__(self, setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_live, args=(theirs, asdict(setting), os.getpid()), daemon=True)
        self.process.start()
        theirs.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _live(connection: Connection, setting: dict[str, Any], parent: int) -> None:
    """A worker's life: rounds of prompts in, answers out, until the other end closes."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    end_with(parent)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            worker = EngineWorker(Setting(**setting))
        except HerdError as error:
            connection.send_bytes(json.dumps({"error": as_told(error)}).encode())
            return
        connection.send_bytes(json.dumps({"answers": []}).encode())
        while True:
            answers = worker.work(json.loads(connection.recv_bytes()))
            connection.send_bytes(json.dumps({"answers": answers}, allow_nan=False).encode())


def _device(setting: Setting, number: int) -> str:
    """A worker's GPU, or the first of as many as it has processes."""
    if setting.device not in {"auto", "cuda"}:
        return setting.device
    import torch

    groups = torch.cuda.device_count() // setting.processes
    return f"cuda:{number % groups * setting.processes}" if groups else setting.device
