"""Several models behind one server: each with a worker of its own, loaded on demand, the least recently used unloaded.

Memory is counted before a model is loaded: its weights as they lie in the folder, its cache, and what a worker needs
besides. Once loaded, what the worker measured replaces the estimate.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.base.errors import InputError
from herdlm.serve.errors import RefusedError, shown
from herdlm.serve.guard.moderation import Moderator
from herdlm.serve.workers.backend import Backend, Launch, launch_process
from herdlm.serve.workers.memory import estimate_memory
from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.protocol import WorkerOptions

log = logging.getLogger(__name__)

GIB = 2**30


@dataclass(slots=True, eq=False)
class Model:
    """One model of the server.

    Attributes:
        users: requests that hold it; it is unloaded only when there are none.
        used_at: when the last of them came or left.
        resident: it holds memory, be it that its worker is being started anew.
        loading: under way; not ended when those who asked for the model leave.
    """

    text: ModelText
    backend: Backend
    users: int = 0
    used_at: float = 0.0
    resident: bool = False
    loading: asyncio.Task[None] | None = None

    @property
    def bytes(self) -> int:
        """Memory of its worker, told or estimated."""
        return int(self.backend.info.get("bytes") or estimate_memory(self.text, self.backend.options))

    def description(self) -> dict[str, Any]:
        """The model as ``/v1/models`` tells it; beyond OpenAI's API its context in tokens, and whether it is loaded."""
        return {
            "id": self.text.name,
            "object": "model",
            "created": self.text.created,
            "owned_by": "herdlm",
            "max_model_len": self.text.context,
            "loaded": self.backend.ready,
        }


class Lease:
    """A request's hold on a loaded model; :meth:`close` it in the end."""

    def __init__(self, models: Models, model: Model) -> None:
        self.model, self.text, self.backend = model, model.text, model.backend
        self._models: Models | None = models

    def close(self) -> None:
        """Give the model up. May be called twice."""
        models, self._models = self._models, None
        if models:
            models.release(self.model)


class Models:
    """All models of the server, by name.

    Args:
        memory_gib: the most memory that loaded models and the guard may take together; None for no limit.
        guard: has a worker too, which is never unloaded.
        wait_seconds: a request waits so long for memory that others hold.

    Raises:
        InputError: two models have the same name, or one exceeds what the guard leaves of the memory.
    """

    def __init__(
        self,
        texts: Sequence[ModelText],
        *,
        device: str = "auto",
        dtype: str = "auto",
        cache_tokens: int | None = None,
        tensor_parallel: int = 1,
        pipeline_parallel: int = 1,
        memory_gib: float | None = None,
        guard: Moderator | None = None,
        wait_seconds: float = 60,
        launch: Launch = launch_process,
    ) -> None:
        self.wait_seconds = wait_seconds
        self.limit = None if memory_gib is None else int(memory_gib * GIB)
        self.guard = guard
        self.loads = self.evictions = 0
        self._by_name: dict[str, Model] = {}
        for text in texts:
            if text.name in self._by_name:
                raise InputError(
                    f"two models are called {text.name}: {self._by_name[text.name].text.folder} and {text.folder}",
                    "Name one differently: NAME=FOLDER",
                )
            options = WorkerOptions(str(text.folder), device, dtype, cache_tokens, tensor_parallel, pipeline_parallel)
            model = Model(text, Backend(text.name, options, launch))
            if self.limit is not None and model.bytes + self._guard_bytes > self.limit:
                raise InputError(self._too_large(model), "Raise --memory-gib or lower --cache-tokens")
            self._by_name[text.name] = model
        self._load_lock = asyncio.Lock()
        self._released = asyncio.Event()  # set when a request gives a model up

    def __iter__(self) -> Iterator[Model]:
        return iter(self._by_name.values())

    @property
    def default(self) -> Model:
        """The model named first: it is loaded when the server starts."""
        return next(iter(self._by_name.values()))

    def find(self, name: str) -> Model:
        """The model of that name.

        Raises:
            RefusedError: there is none.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise RefusedError(
                f"there is no model {shown(name)} here",
                f"This server has {', '.join(self._by_name)}",
                param="model",
                code="model_not_found",
                status=404,
            ) from None

    async def lease(self, name: str) -> Lease:
        """The model of that name, loaded, for one request.

        Raises:
            RefusedError: there is no such model, or no memory for it came free in time.
            WorkerFailedError, HerdError: it cannot be loaded.
        """
        model = self.find(name)
        model.users += 1
        try:
            if not model.backend.ready:
                await asyncio.shield(self._loading(model))
        except BaseException:
            self.release(model)
            raise
        model.used_at = time.monotonic()
        return Lease(self, model)

    def release(self, model: Model) -> None:
        """A request is done with ``model``."""
        model.users -= 1
        model.used_at = time.monotonic()
        self._released.set()

    async def stop(self) -> None:
        """End all workers."""
        await asyncio.gather(*(model.backend.stop() for model in self))

    def fail_all(self, what: str) -> None:
        """Fail all that is under way."""
        for model in self:
            model.backend.fail_all(what)

    def _loading(self, model: Model) -> asyncio.Task[None]:
        if model.loading is None:
            model.loading = asyncio.create_task(self._load(model))
            model.loading.add_done_callback(lambda task: _on_loaded(model, task))
        return model.loading

    async def _load(self, model: Model) -> None:
        async with self._load_lock:
            if not model.resident:
                await self._free_memory(model)
            model.resident = True
            try:
                await model.backend.start()
            except InputError:
                model.resident = False
                raise
        model.text.context = model.backend.info["context"]
        self.loads += 1

    async def _free_memory(self, model: Model) -> None:
        if self.limit is None:
            return
        deadline = time.monotonic() + self.wait_seconds
        while sum(each.bytes for each in (model, *self._residents)) + self._guard_bytes > self.limit:
            if not self._residents:  # what was measured is more than was estimated
                raise RefusedError(
                    self._too_large(model),
                    "Raise --memory-gib or lower --cache-tokens",
                    param="model",
                    code="no_memory",
                    status=503,
                )
            idle = [each for each in self._residents if not each.users]
            if idle:
                oldest = min(idle, key=lambda each: each.used_at)
                log.info("unloading %s to load %s", oldest.text.name, model.text.name)
                oldest.resident = False
                self.evictions += 1
                await oldest.backend.stop()
                continue
            self._released.clear()
            try:
                await asyncio.wait_for(self._released.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise RefusedError(
                    f"there is no memory for {model.text.name}: other models are at work",
                    "PromptRequest again later",
                    param="model",
                    code="busy",
                    status=503,
                    retry_after=self.wait_seconds,
                ) from None

    @property
    def _residents(self) -> list[Model]:
        return [each for each in self if each.resident]

    @property
    def _guard_bytes(self) -> int:
        return self.guard.bytes if self.guard else 0

    def _too_large(self, model: Model) -> str:
        assert self.limit is not None
        guard = f" beside the guard's {self._guard_bytes / GIB:.2f}" if self.guard else ""
        return f"{model.text.name} needs about {model.bytes / GIB:.2f} GiB{guard}, the limit is {self.limit / GIB:.4g}"


def _on_loaded(model: Model, task: asyncio.Task[None]) -> None:
    model.loading = None
    if not task.cancelled() and (error := task.exception()):
        log.error("%s could not be loaded: %s", model.text.name, error)
