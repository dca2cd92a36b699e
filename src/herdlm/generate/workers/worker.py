"""What a worker is: a class that loads a model and works on requests in rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from herdlm.generate.request import Completion, SamplingParams

if TYPE_CHECKING:
    from herdlm.generate.engine import Engine

ROUND_SECONDS = 0.2

Request = Any  # JSON of a mapping that has "number"
Finished = tuple[int, dict[str, Any]]  # a request's number and the answer to it, as JSON


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """A worker's settings; ``seed`` is the run's, ``page`` and ``max_batch`` its engine's."""

    model: str
    device: str
    dtype: str
    seed: int
    threads: int | None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    page: int = 1
    max_batch: int = 256

    @property
    def processes(self) -> int:
        """Number of processes that share the worker's model."""
        return self.tensor_parallel * self.pipeline_parallel

    def limit_threads(self) -> None:
        """Let this process compute on the configured number of threads."""
        if self.threads:
            import torch

            torch.set_num_threads(self.threads)


class Worker(Protocol):
    """Works on requests."""

    def work(self, requests: Sequence[Request]) -> list[Finished]:
        """Add requests and work until some are finished; returns those."""


Load = Callable[[WorkerConfig], Worker]
"""A class at the top of a module, which worker processes import by its name.

Raises:
    HerdError: the model cannot be loaded.
"""


class Running:
    """Requests that run on an engine, by the caller's numbers."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._numbers: dict[int, tuple[int, int]] = {}  # number and samples, by the engine's request id
        self._done: dict[int, dict[int, Completion]] = {}

    def submit(self, number: int, tokens: Sequence[int], params: SamplingParams) -> None:
        """Add a request.

        Raises:
            InputError: the engine refuses it.
        """
        id = self.engine.submit(tokens, params, stream=False)
        self._numbers[id] = number, params.n
        self._done[id] = {}

    def step(self) -> Iterator[tuple[int, list[Completion]]]:
        """Take a step of the engine: the samples of the requests that it finishes."""
        for event in self.engine.step():
            assert event.completion is not None
            number, samples = self._numbers[event.request_id]
            done = self._done[event.request_id]
            done[event.sample] = event.completion
            if len(done) == samples:
                del self._numbers[event.request_id], self._done[event.request_id]
                yield number, [done[i] for i in range(samples)]

    def round(self, *, finished: bool) -> Iterator[tuple[int, list[Completion]]]:
        """Take steps for a moment, and on until a request is ``finished``. Others stay in the batch."""
        until = time.monotonic() + ROUND_SECONDS
        while self._numbers and not (finished and time.monotonic() > until):
            for each in self.step():
                finished = True
                yield each

    def abort(self) -> None:
        """Drop all requests."""
        for id in self._numbers:
            self.engine.abort(id)
        self._numbers.clear()
        self._done.clear()
