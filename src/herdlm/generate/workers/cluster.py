"""Workers as actors on a Ray cluster. Every node needs herdlm installed and access to the model's folder."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from herdlm.base.errors import HerdError, InputError, error_from_json, error_to_json
from herdlm.curate.runner.cluster import connect
from herdlm.generate.workers.worker import Finished, Load, Request, WorkerConfig


class RayWorkers:
    """``count`` actors, by default as many as the cluster's GPUs, or else CPUs, allow at one per process.

    The processes of a worker share a node. Each computes on one thread.

    Args:
        config: its device decides what an actor needs: "auto" means GPUs if the cluster has any.
    """

    def __init__(self, address: str, config: WorkerConfig, count: int | None, load: Load) -> None:
        self.address, self.config, self._load = address, config, load
        self._requested = count

    def __enter__(self) -> RayWorkers:
        self._ray = ray = connect(self.address)
        try:
            self.count, on_gpu = self._count_workers([node["Resources"] for node in ray.nodes() if node["Alive"]])
            processes = self.config.processes
            self._actor = ray.remote(num_cpus=processes, num_gpus=processes * on_gpu)(_Actor)
            self._actors: list[Any] = [None] * self.count
            self._calls: dict[Any, int] = {}  # the open call of each worker
            for number in range(self.count):
                self._start(number)
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._ray.shutdown()

    def submit(self, worker: int, requests: Sequence[Request]) -> None:
        """See :class:`~herdlm.generate.workers.pool.Workers`."""
        self._calls[self._actors[worker].work.remote(list(requests))] = worker

    def poll(self) -> list[tuple[int, list[Finished] | None]]:
        """See :class:`~herdlm.generate.workers.pool.Workers`."""
        ready, _ = self._ray.wait(list(self._calls), num_returns=1)
        finished: list[tuple[int, list[Finished] | None]] = []
        for call in ready:
            number = self._calls.pop(call)
            try:
                message = self._ray.get(call)
            except self._ray.exceptions.RayError:
                self._start(number)
                finished.append((number, None))
                continue
            if "error" in message:
                raise error_from_json(message["error"])
            finished.append((number, message["answers"]))
        return finished

    def _count_workers(self, nodes: list[dict[str, float]]) -> tuple[int, bool]:
        """The number of workers, and whether they use GPUs."""
        device, processes = self.config.device, self.config.processes
        on_gpu = device.startswith("cuda") or (device == "auto" and any(node.get("GPU") for node in nodes))
        kind = "GPU" if on_gpu else "CPU"
        has = [int(node.get(kind, 0)) for node in nodes]
        most = sum(count // processes for count in has)
        if not most:
            needed = f"no {kind}" if processes == 1 else f"no node with {processes} {kind}s"
            raise InputError(f"the cluster has {needed}", "Start such nodes, or change --device")
        if self._requested and self._requested > most:
            each = "" if processes == 1 else f" of {processes} processes"
            raise InputError(f"{self._requested} workers{each} do not fit on {sum(has)} {kind}s", "Lower --workers")
        return self._requested or most, on_gpu

    def _start(self, number: int) -> None:
        self._actors[number] = self._actor.remote()
        self._calls[self._actors[number].start.remote(self._load, self.config)] = number


class _Actor:
    """An engine on a node. Returns errors as dictionaries, since Ray wraps what an actor raises."""

    def start(self, load: Load, config: WorkerConfig) -> dict[str, Any]:
        try:
            self._worker = load(config)
        except HerdError as error:
            return {"error": error_to_json(error)}
        return {"answers": []}

    def work(self, requests: list[Request]) -> dict[str, Any]:
        return {"answers": self._worker.work(requests)}
