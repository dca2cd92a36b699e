"""The models of a server. Each has a worker, is loaded on demand, and is unloaded when least recently used.

Before a model is loaded, its memory is estimated from its weight files, its cache and the process. Then the worker's
own measurement replaces the estimate.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from herdlm.base.errors import InputError
from herdlm.serve.errors import RefusedError, shown
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
        users: requests that hold it. It is unloaded only when there are none.
        used_at: when a request last took or released it.
        resident: whether it holds memory, even while its worker restarts.
        loading: the running load, which goes on when the requests that wait for it are cancelled.
    """

    text: ModelText
    backend: Backend
    users: int = 0
    used_at: float = 0.0
    resident: bool = False
    loading: asyncio.Task[None] | None = None

    @property
    def bytes(self) -> int:
        """Bytes of memory of its worker, measured or estimated."""
        info = self.backend.info
        return info.bytes if info else estimate_memory(self.text, self.backend.options)

    def description(self) -> dict[str, Any]:
        """The model's entry in ``/v1/models``. The context in tokens and ``loaded`` go beyond the OpenAI API."""
        return {
            "id": self.text.name,
            "object": "model",
            "created": self.text.created,
            "owned_by": "herdlm",
            "max_model_len": self.text.context,
            "loaded": self.backend.ready,
        }


class Lease:
    """A request's hold on a loaded model. Call :meth:`close` at the end."""

    def __init__(self, models: Models, model: Model) -> None:
        self.model, self.text, self.backend = model, model.text, model.backend
        self._models: Models | None = models

    def close(self) -> None:
        """Release the model. May be called twice."""
        models, self._models = self._models, None
        if models:
            models.release(self.model)


class Models:
    """All models of the server, by name.

    Args:
        memory_gib: memory limit for loaded models and the guard together; None for no limit.
        guard_bytes: gives the memory of the guard's worker, which is never unloaded.
        wait_seconds: how long a request waits for memory that other models hold.

    Raises:
        InputError: two models have the same name, or one does not fit into the memory beside the guard.
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
        guard_bytes: Callable[[], int] | None = None,
        wait_seconds: float = 60,
        launch: Launch = launch_process,
    ) -> None:
        self.wait_seconds = wait_seconds
        self.limit = None if memory_gib is None else int(memory_gib * GIB)
        self._guard_bytes = guard_bytes
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
            if self.limit is not None and model.bytes + self._reserved > self.limit:
                raise InputError(self._too_large(model), "Raise --memory-gib or lower --cache-tokens")
            self._by_name[text.name] = model
        self._load_lock = asyncio.Lock()
        self._released = asyncio.Event()  # set when a request releases a model

    def __iter__(self) -> Iterator[Model]:
        return iter(self._by_name.values())

    @property
    def default(self) -> Model:
        """The first model, which is loaded when the server starts."""
        return next(iter(self._by_name.values()))

    @cached_property
    def share_tokenizer(self) -> bool:
        """Whether all models have one tokenizer and one chat template."""
        forms = {(each.text.tokenizer.backend.to_str(), each.text.format.template_text) for each in self}
        return len(forms) == 1

    def find(self, name: str) -> Model:
        """The model of that name.

        Raises:
            RefusedError: no model has that name.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise RefusedError(
                f"this server has no model {shown(name)}",
                f"It has {', '.join(self._by_name)}",
                param="model",
                code="model_not_found",
                status=404,
            ) from None

    async def lease(self, name: str) -> Lease:
        """Load the model of that name if needed and hold it for one request.

        Raises:
            RefusedError: no model has that name, or no memory was freed in time.
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
        """End a request's hold on ``model``."""
        model.users -= 1
        model.used_at = time.monotonic()
        self._released.set()

    async def stop(self) -> None:
        """Stop all workers."""
        await asyncio.gather(*(model.backend.stop() for model in self))

    def fail_all(self, what: str) -> None:
        """Fail all running requests."""
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
        assert model.backend.info is not None
        model.text.context = model.backend.info.context
        self.loads += 1

    async def _free_memory(self, model: Model) -> None:
        if self.limit is None:
            return
        deadline = time.monotonic() + self.wait_seconds
        while sum(each.bytes for each in (model, *self._residents)) + self._reserved > self.limit:
            if not self._residents:  # the measured size exceeds the estimate
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
                    f"there is no memory for {model.text.name}: other models are in use",
                    "Retry later",
                    param="model",
                    code="busy",
                    status=503,
                    retry_after=self.wait_seconds,
                ) from None

    @property
    def _residents(self) -> list[Model]:
        return [each for each in self if each.resident]

    @property
    def _reserved(self) -> int:
        return self._guard_bytes() if self._guard_bytes else 0

    def _too_large(self, model: Model) -> str:
        assert self.limit is not None
        guard = f" beside the guard's {self._reserved / GIB:.2f}" if self._guard_bytes else ""
        return f"{model.text.name} needs about {model.bytes / GIB:.2f} GiB{guard}, the limit is {self.limit / GIB:.4g}"


def _on_loaded(model: Model, task: asyncio.Task[None]) -> None:
    model.loading = None
    if not task.cancelled() and (error := task.exception()):
        log.error("%s could not be loaded: %s", model.text.name, error)
