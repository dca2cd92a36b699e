"""Workers as actors on a Ray cluster. All nodes must have herdlm installed and see the model's folder."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from herdlm.base.errors import HerdError, InputError
from herdlm.curate.runner.cluster import connect
from herdlm.serve.batch.prompts import Ask
from herdlm.serve.batch.worker import Answered, EngineWorker, Setting, as_told, rethrown


class RayWorkers:
    """``count`` actors, or as many as the cluster has GPUs, or else CPUs, for: one for each process of a worker.

    The processes of one worker are on one node. Each computes on one thread.

    Args:
        setting: its device decides what an actor takes: "auto" means GPUs where the cluster has any.
    """

    def __init__(self, address: str, setting: Setting, count: int | None) -> None:
        self.address, self.setting = address, setting
        self._asked = count

    def __enter__(self) -> RayWorkers:
        self._ray = ray = connect(self.address)
        try:
            self.count, on_gpu = self._counted([node["Resources"] for node in ray.nodes() if node["Alive"]])
            processes = self.setting.processes
            self._actor = ray.remote(num_cpus=processes, num_gpus=processes * on_gpu)(_Actor)
            self._actors: list[Any] = [None] * self.count
            self._under_way: dict[Any, int] = {}  # the one call of each worker that has not answered
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

    def give(self, worker: int, asks: Sequence[Ask]) -> None:
        """See :class:`~herdlm.serve.batch.run.Workers`."""
        self._under_way[self._actors[worker].work.remote(list(asks))] = worker

    def news(self) -> list[tuple[int, list[Answered] | None]]:
        """See :class:`~herdlm.serve.batch.run.Workers`."""
        ready, _ = self._ray.wait(list(self._under_way), num_returns=1)
        found: list[tuple[int, list[Answered] | None]] = []
        for call in ready:
            number = self._under_way.pop(call)
            try:
                told = self._ray.get(call)
            except self._ray.exceptions.RayError:
                self._start(number)
                found.append((number, None))
                continue
            if "error" in told:
                raise rethrown(told["error"])
            found.append((number, told["answers"]))
        return found

    def _counted(self, nodes: list[dict[str, float]]) -> tuple[int, bool]:
        """The number of workers, and whether they take GPUs."""
        device, processes = self.setting.device, self.setting.processes
        on_gpu = device.startswith("cuda") or (device == "auto" and any(node.get("GPU") for node in nodes))
        kind = "GPU" if on_gpu else "CPU"
        has = [int(node.get(kind, 0)) for node in nodes]
        most = sum(count // processes for count in has)
        if not most:
            needed = f"no {kind}" if processes == 1 else f"no node with {processes} {kind}s"
            raise InputError(f"the cluster has {needed}", "Start nodes that have, or change --device")
        if self._asked and self._asked > most:
            each = "" if processes == 1 else f" of {processes} processes"
            raise InputError(f"{self._asked} workers{each} on a cluster of {sum(has)} {kind}s", "Ask for fewer")
        return self._asked or most, on_gpu

    def _start(self, number: int) -> None:
        self._actors[number] = self._actor.remote()
        self._under_way[self._actors[number].start.remote(self.setting)] = number


class _Actor:
    """An engine on a node. Answers are dictionaries, as Ray hands on what an actor returns but not what it raises."""

    def start(self, setting: Setting) -> dict[str, Any]:
        try:
            self._worker = EngineWorker(setting)
        except HerdError as error:
            return {"error": as_told(error)}
        return {"answers": []}

    def work(self, asks: list[Ask]) -> dict[str, Any]:
        return {"answers": self._worker.work(asks)}
