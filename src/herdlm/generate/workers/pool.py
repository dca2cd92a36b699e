"""Divides requests among workers, and gives them again where a worker dies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from herdlm.base.errors import HerdError, InputError
from herdlm.generate.workers.worker import Finished, Load, Request, WorkerConfig

# Samples in flight per worker: an engine's batch and as many waiting, so that the batch stays full.
SAMPLES_AHEAD = 512
MAX_DEATHS = 3  # of workers in a row, without an answer in between


class Workers(Protocol):
    """Workers in other processes, numbered from 0."""

    count: int

    def submit(self, worker: int, requests: Sequence[Request]) -> None:
        """Send requests, possibly none, to a worker that has reported. It reports again when some are finished."""

    def poll(self) -> list[tuple[int, list[Finished] | None]]:
        """Wait for workers to report: when they are ready, then after each round.

        None in place of answers means that the worker died with everything in flight and was replaced.

        Raises:
            HerdError: a worker cannot load the model.
        """


def open_workers(
    config: WorkerConfig, load: Load, *, workers: int | None, cluster: str | None
) -> AbstractContextManager[Workers]:
    """Workers on a Ray cluster, or else in processes of this machine.

    Args:
        workers: how many; by default 1, or one per CPU or GPU of a cluster.

    Raises:
        InputError: there cannot be that many; also when they are opened.
    """
    if workers is not None and workers < 1:
        raise InputError(f"--workers is {workers}", "Give at least 1")
    if cluster is not None:
        from herdlm.generate.workers.cluster import RayWorkers

        return RayWorkers(cluster, config, workers, load)
    from herdlm.generate.workers.processes import ProcessWorkers

    return ProcessWorkers(config, workers or 1, load)


class Pool:
    """Divides requests among open workers. May run any number of times.

    Attributes:
        deaths: the number of workers that died.
    """

    def __init__(self, workers: Workers) -> None:
        self.workers, self.deaths = workers, 0
        self._in_flight: list[dict[int, int]] = [{} for _ in range(workers.count)]  # samples of each, by worker
        self._idle: set[int] = set()

    def run(
        self, numbers: Iterable[int], request: Callable[[int], tuple[Request, int]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """The answer to each request with its number, as they are finished.

        Args:
            numbers: of the requests; no two runs of a pool share one.
            request: makes a request, and says how many samples it asks for.

        Raises:
            HerdError: workers keep dying, or cannot load the model.
        """
        waiting = deque(numbers)
        left, in_a_row = set(waiting), 0
        while left:
            for worker in sorted(self._idle):
                requests = self._next_requests(waiting, request, self._in_flight[worker])
                if requests or self._in_flight[worker]:
                    self._idle.remove(worker)
                    self.workers.submit(worker, requests)
            for worker, finished in self.workers.poll():
                if finished is None:
                    self.deaths, in_a_row = self.deaths + 1, in_a_row + 1
                    self._idle.discard(worker)
                    waiting.extendleft(number for number in reversed(self._in_flight[worker]) if number in left)
                    self._in_flight[worker].clear()
                    if in_a_row >= MAX_DEATHS:
                        raise HerdError(
                            f"workers died {in_a_row} times in a row without an answer",
                            "If they ran out of memory, lower --workers. Run again to resume; answers are kept",
                        )
                    continue
                self._idle.add(worker)
                for number, answer in finished:
                    del self._in_flight[worker][number]
                    in_a_row = 0
                    if number in left:  # not of a run that was given up
                        left.remove(number)
                        yield number, answer

    def _next_requests(
        self, waiting: deque[int], request: Callable[[int], tuple[Request, int]], in_flight: dict[int, int]
    ) -> list[Request]:
        """Requests for a worker: its share of the waiting ones, as far as it has room beside ``in_flight``."""
        requests: list[Request] = []
        share = -(-len(waiting) // self.workers.count)
        while waiting and len(requests) < share and sum(in_flight.values()) < SAMPLES_AHEAD:
            number = waiting.popleft()
            made, in_flight[number] = request(number)
            requests.append(made)
        return requests
