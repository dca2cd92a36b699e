"""Engines that evaluation asks: one in this process, or several in processes of this machine or on a cluster."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from herdlm.base.errors import InputError, error_from_json, error_to_json
from herdlm.generate.request import Completion, SamplingParams, params_from_json, params_to_json
from herdlm.generate.score import Score, score, score_requests, scores_of
from herdlm.generate.workers.pool import Pool, open_workers
from herdlm.generate.workers.worker import Finished, Running, WorkerConfig

SCORING_PAGE = 1  # tokens; choices share all of their question that they need not compute
WRITING_PAGE = 16  # a third faster where answers are generated


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a model is loaded.

    Attributes:
        workers: engines in processes of their own; None for one in this process, or all that fit on a cluster.
        cluster: the address of a Ray cluster that runs the workers.
        page: tokens per page of an engine's cache.
        max_batch: the most sequences that an engine runs at once.
        threads: CPU threads of each worker; None: its share of the cores.
    """

    device: str = "auto"
    dtype: str = "auto"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    workers: int | None = None
    cluster: str | None = None
    page: int = SCORING_PAGE
    max_batch: int = 256
    threads: int | None = None


class Tokens(Protocol):
    """Engines that take tokens.

    Attributes:
        compute: the precision in which they compute.
        count: how many there are.
    """

    compute: str
    count: int

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Score]:
        """As :func:`herdlm.generate.score.score`."""

    def generate(
        self, prompts: Sequence[list[int]], params: Sequence[SamplingParams]
    ) -> Iterator[tuple[int, list[Completion]]]:
        """The completions of each prompt with its number, as they are finished."""

    def close(self) -> None:
        """End the engines."""


class OneEngine:
    """An engine in this process."""

    count = 1

    def __init__(self, folder: Path, options: EngineOptions) -> None:
        from herdlm.generate import Engine

        self.engine = Engine.load(
            folder,
            device=options.device,
            dtype=options.dtype,
            page_size=options.page,
            max_batch=options.max_batch,
            tensor_parallel=options.tensor_parallel,
            pipeline_parallel=options.pipeline_parallel,
        )
        self.compute = str(self.engine.compute).removeprefix("torch.")

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Score]:
        """See :class:`Tokens`."""
        return score(self.engine, pairs)

    def generate(
        self, prompts: Sequence[list[int]], params: Sequence[SamplingParams]
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See :class:`Tokens`."""
        running = Running(self.engine)
        try:
            for number, (prompt, each) in enumerate(zip(prompts, params, strict=True)):
                running.submit(number, prompt, each)
            while self.engine.busy:
                yield from running.step()
        finally:
            running.abort()

    def close(self) -> None:
        """See :class:`Tokens`."""
        self.engine.close()


class ManyEngines:
    """Engines in processes of this machine or on a cluster.

    Raises:
        HerdError: the model cannot be loaded, or the cluster cannot be reached.
    """

    def __init__(self, folder: Path, options: EngineOptions) -> None:
        self._opened = open_workers(
            worker_config(folder, options), EvaluationWorker, workers=options.workers, cluster=options.cluster
        )
        workers = self._opened.__enter__()
        try:
            self.count = workers.count
            self._pool, self._numbers = Pool(workers), itertools.count()
            self.compute = str(self._ask([{"compute": True}])[0]["compute"])
        except BaseException:
            self.close()
            raise

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Score]:
        """See :class:`Tokens`."""
        prompts, params = score_requests(pairs)
        done = dict(self.generate(prompts, params))
        return scores_of(pairs, [done[number][0] for number in range(len(prompts))])

    def generate(
        self, prompts: Sequence[list[int]], params: Sequence[SamplingParams]
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See :class:`Tokens`."""
        requests = [
            {"tokens": tokens, "params": params_to_json(each)} for tokens, each in zip(prompts, params, strict=True)
        ]
        for number, answer in self._answers(requests):
            yield number, [Completion(**completion) for completion in answer["completions"]]

    def close(self) -> None:
        """See :class:`Tokens`."""
        self._opened.__exit__(None, None, None)

    def _answers(self, requests: Sequence[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        places = {next(self._numbers): place for place in range(len(requests))}

        def request(number: int) -> tuple[dict[str, Any], int]:
            made = requests[places[number]]
            return {"number": number, **made}, made.get("params", {}).get("n", 1)

        for number, answer in self._pool.run(places, request):
            if "error" in answer:
                raise error_from_json(answer["error"])
            yield places[number], answer

    def _ask(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        done = dict(self._answers(requests))
        return [done[i] for i in range(len(requests))]


class EvaluationWorker:
    """One engine that completes prompts of tokens, in a process or as an actor of a cluster.

    Raises:
        HerdError: the model cannot be loaded.
    """

    def __init__(self, config: WorkerConfig) -> None:
        config.limit_threads()
        options = EngineOptions(
            config.device,
            config.dtype,
            config.tensor_parallel,
            config.pipeline_parallel,
            page=config.page,
            max_batch=config.max_batch,
        )
        self._one = OneEngine(Path(config.model), options)
        self._running = Running(self._one.engine)

    def work(self, requests: Sequence[dict[str, Any]]) -> list[Finished]:
        """Begin requests and work until some are finished; returns those."""
        finished = [done for request in requests if (done := self._begin(request)) is not None]
        for number, completions in self._running.round(finished=bool(finished)):
            finished.append((number, {"completions": [asdict(completion) for completion in completions]}))
        return finished

    def _begin(self, request: dict[str, Any]) -> Finished | None:
        if "compute" in request:
            return request["number"], {"compute": self._one.compute}
        try:
            self._running.submit(request["number"], request["tokens"], params_from_json(request["params"]))
        except InputError as error:
            return request["number"], {"error": error_to_json(error)}
        return None


def worker_config(folder: Path, options: EngineOptions) -> WorkerConfig:
    """What each worker is told, to load a model of its own."""
    return WorkerConfig(
        model=os.path.abspath(folder),  # noqa: PTH100 - keeps links
        device=options.device,
        dtype=options.dtype,
        seed=0,
        threads=options.threads,
        tensor_parallel=options.tensor_parallel,
        pipeline_parallel=options.pipeline_parallel,
        page=options.page,
        max_batch=options.max_batch,
    )


def open_engines(folder: Path, options: EngineOptions) -> Tokens:
    """The engines that options ask for.

    Raises:
        HerdError: the model cannot be loaded, or the cluster cannot be reached.
    """
    if options.workers is None and options.cluster is None:
        return OneEngine(folder, options)
    return ManyEngines(folder, options)
