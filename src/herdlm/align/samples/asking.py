"""Asks a model many requests in batches that do not depend on what was answered before.

On a CPU a sum is rounded by what else is computed with it, and one draw in some thousands turns with it. So requests
are divided into batches by their order alone, and each batch runs by itself on an engine whose cache is empty. Whatever
is killed, and however many engines there are, each answer is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from herdlm.base.errors import HerdError, InputError, error_from_json, error_to_json
from herdlm.base.ledger import Ledger
from herdlm.base.progress import Progress
from herdlm.evaluate.engines import WRITING_PAGE, EngineOptions
from herdlm.evaluate.local import LocalModel
from herdlm.evaluate.remote import RemoteModel, RemoteOptions, is_address
from herdlm.evaluate.requests import Answer, AnswerRequest
from herdlm.generate import Engine
from herdlm.generate.load import pick_device
from herdlm.generate.request import Completion, SamplingParams, params_from_json, params_to_json
from herdlm.generate.score import Score
from herdlm.generate.workers.pool import SAMPLES_AHEAD, Pool, open_workers
from herdlm.generate.workers.worker import Finished, WorkerConfig
from herdlm.model.folders import model_folder

ON_CPU, ON_GPU = 64, 2048  # answers of a batch; a CPU gains a tenth by four times as many
Asked = LocalModel | RemoteModel


def open_asked(model: str, engine: EngineOptions, remote: RemoteOptions, batch: int | None = None) -> Asked:
    """The model in a folder or a run, or behind the address of a server.

    Args:
        batch: answers that an engine draws together.

    Raises:
        HerdError: it is unusable, or has no chat template.
    """
    if is_address(model):
        found: Asked = RemoteModel(model, remote)
    else:
        folder = model_folder(Path(model))
        found = LocalModel(folder, engine, BatchEngines(folder, engine, batch or batch_size(engine)))
    if not found.chats:
        found.close()
        raise InputError(f"{model} has no chat template", "Name a model that was trained on chats")
    return found


def batch_size(options: EngineOptions) -> int:
    """How many answers are drawn together where nobody says."""
    somewhere = options.cluster is not None and options.device == "auto"
    return ON_GPU if somewhere or pick_device(options.device).type == "cuda" else ON_CPU


def answers_to(
    model: Asked, requests: Sequence[AnswerRequest], ledger: Ledger, *, title: str, quiet: bool = False
) -> list[list[Answer]]:
    """The answers to each request, in order; those that the ledger holds are not asked for again.

    Raises:
        HerdError: the model cannot answer. Finished batches are kept.
    """
    size = model.engines.size if isinstance(model, LocalModel) and isinstance(model.engines, BatchEngines) else 1
    batches = batched([request.samples for request in requests], size)
    keys = [_key(model.fingerprint, [requests[i] for i in batch]) for batch in batches]
    waiting = [number for number, key in enumerate(keys) if key not in ledger.found]
    with Progress(title, sum(request.samples for request in requests), "answers", quiet=quiet) as progress:
        progress.restore(sum(requests[i].samples for n in set(range(len(keys))) - set(waiting) for i in batches[n]))
        numbers = [(batch, i) for batch in waiting for i in batches[batch]]
        done: dict[int, dict[int, list[Answer]]] = {}
        for place, answers in model.answer([requests[i] for _, i in numbers]) if numbers else ():
            batch, i = numbers[place]
            own = done.setdefault(batch, {})
            own[i] = answers
            progress.advance(len(answers))
            if len(own) == len(batches[batch]):
                ledger.add(keys[batch], [[asdict(answer) for answer in own[i]] for i in batches[batch]])
                del done[batch]
    return [[Answer(**answer) for answer in answers] for key in keys for answers in ledger.found[key]]


def batched(counts: Sequence[int], size: int) -> list[list[int]]:
    """Requests, by their numbers, in batches that end as soon as they hold ``size`` answers.

    Without any of its batches, the rest is divided as before.
    """
    batches: list[list[int]] = []
    held = size
    for number, count in enumerate(counts):
        if held >= size:
            batches.append([])
            held = 0
        batches[-1].append(number)
        held += count
    return batches


def _key(fingerprint: str, requests: Sequence[AnswerRequest]) -> str:
    asked = json.dumps([fingerprint, [asdict(request) for request in requests]], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:32]


class BatchEngines:
    """Engines that complete one batch after another; see :class:`herdlm.evaluate.engines.Tokens`.

    Args:
        size: answers after which a batch ends.

    Raises:
        HerdError: the model cannot be loaded, or the cluster cannot be reached.
    """

    def __init__(self, folder: Path, options: EngineOptions, size: int) -> None:
        import os

        self.size, self._numbers, self._stack = size, 0, ExitStack()
        path = os.path.abspath(folder)  # noqa: PTH100 - keeps links
        config = WorkerConfig(
            path, options.device, options.dtype, 0, None, options.tensor_parallel, options.pipeline_parallel
        )
        self._pool: Pool | None = None
        self._one: BatchWorker | None = None
        if options.workers is None and options.cluster is None:
            self._one, self.count = BatchWorker(config), 1
            self._stack.callback(self._one.engine.close)
            self.compute = self._one.compute
            return
        opened = open_workers(config, BatchWorker, workers=options.workers, cluster=options.cluster)
        workers = self._stack.enter_context(opened)
        try:
            self._pool, self.count = Pool(workers), workers.count
            self.compute = str(self._asked([{"compute": True}])[0]["compute"])
        except BaseException:
            self.close()
            raise

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Score]:
        """Not for these engines, which write."""
        raise NotImplementedError

    def generate(
        self, prompts: Sequence[list[int]], params: Sequence[SamplingParams]
    ) -> Iterator[tuple[int, list[Completion]]]:
        """The completions of each prompt with its number, batch by batch."""
        batches = batched([each.n for each in params], self.size)
        requests = [
            {"prompts": [prompts[i] for i in batch], "params": [params_to_json(params[i]) for i in batch]}
            for batch in batches
        ]
        for number, answer in self._answers(requests):
            for i, completions in zip(batches[number], answer["completions"], strict=True):
                yield i, [Completion(**completion) for completion in completions]

    def close(self) -> None:
        """End the engines."""
        self._stack.close()

    def _asked(self, requests: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
        return dict(self._answers(requests))

    def _answers(self, requests: Sequence[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        first = self._numbers
        self._numbers += len(requests)

        def request(number: int) -> tuple[dict[str, Any], int]:
            # Two batches in flight for each worker: one that runs and one that waits.
            return {"number": number, **requests[number - first]}, SAMPLES_AHEAD // 2

        if self._pool is not None:
            found = self._pool.run(range(first, first + len(requests)), request)
        else:
            assert self._one is not None
            one = self._one
            found = (one.work([request(first + place)[0]])[0] for place in range(len(requests)))
        for number, answer in found:
            if "error" in answer:
                raise error_from_json(answer["error"])
            yield number - first, answer


class BatchWorker:
    """One engine that completes batches one by one, in this process, in one of its own or as an actor of a cluster.

    Raises:
        HerdError: the model cannot be loaded.
    """

    def __init__(self, config: WorkerConfig) -> None:
        config.limit_threads()
        self.engine = Engine.load(
            config.model,
            device=config.device,
            dtype=config.dtype,
            page_size=WRITING_PAGE,
            tensor_parallel=config.tensor_parallel,
            pipeline_parallel=config.pipeline_parallel,
        )
        self.compute = str(self.engine.compute).removeprefix("torch.")
        self._waiting: deque[dict[str, Any]] = deque()

    def work(self, requests: Sequence[dict[str, Any]]) -> list[Finished]:
        """Add batches and complete the first that waits."""
        self._waiting.extend(requests)
        if not self._waiting:
            return []
        request = self._waiting.popleft()
        return [(request["number"], self._answer(request))]

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if "compute" in request:
            return {"compute": self.compute}
        try:
            self.engine.forget_prefixes()
            params = [params_from_json(each) for each in request["params"]]
            found = self.engine.generate(request["prompts"], params)
        except HerdError as error:
            return {"error": error_to_json(error)}
        return {"completions": [[asdict(completion) for completion in each] for each in found]}
