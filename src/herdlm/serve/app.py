"""The OpenAI-compatible web application around one model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from herdlm import __version__
from herdlm.base.seeds import derive_seed
from herdlm.generate.request import SamplingParams
from herdlm.serve import failures
from herdlm.serve.answers import Answer, ChatAnswer, CompletionAnswer, Usage
from herdlm.serve.failures import RefusedError, json_response
from herdlm.serve.loop import EngineLoop
from herdlm.serve.page import page_router
from herdlm.serve.requests import ChatBody, CompletionBody, SamplingBody
from herdlm.serve.served import ServedModel
from herdlm.serve.stream import ClientLeftError, EventStream, unless_client_leaves

Prompts = list[tuple[list[int], int]]  # tokens, and how many may be added


def create_app(model: ServedModel, *, seed: int = 0) -> FastAPI:
    """The application; its engine runs while the application does.

    Args:
        seed: requests without a seed of their own draw with one that depends on this and on how many came before.
    """
    service = Service(model, seed)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.loop.start()
        try:
            yield
        finally:
            await service.loop.stop()

    # The interactive pages are left out, as they load their scripts from another host.
    app = FastAPI(title="herdlm", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    failures.install(app)
    app.include_router(page_router())

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        """Answer a chat."""
        return await service.chat(body, request)

    @app.post("/v1/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        """Continue one or more texts."""
        return await service.complete(body, request)

    @app.get("/v1/models")
    async def models() -> Response:
        """The model served here."""
        return json_response({"object": "list", "data": [service.description()]})

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Response:
        """The model of that name."""
        service.check_name(name)
        return json_response(service.description())

    @app.get("/health")
    async def health() -> Response:
        """Status 200 while the engine runs, 503 with the reason otherwise."""
        failure = service.loop.failure
        if failure:
            return json_response({"status": "failed", "model": model.name, "error": str(failure)}, 503)
        return json_response({"status": "ok", "model": model.name})

    return app


class Service:
    """Answers the requests for one model."""

    def __init__(self, model: ServedModel, seed: int) -> None:
        self.model, self.seed = model, seed
        self.loop = EngineLoop(model.engine)
        self._unseeded = 0

    def description(self) -> dict[str, Any]:
        """The model as ``/v1/models`` tells it; ``max_model_len`` is its context in tokens, beyond OpenAI's API."""
        return {
            "id": self.model.name, "object": "model", "created": self.model.created, "owned_by": "herdlm",
            "max_model_len": self.model.context,
        }  # fmt: skip

    def check_name(self, name: str) -> None:
        """Refuse requests for another model.

        Raises:
            RefusedError: the name is not this model's.
        """
        if name != self.model.name:
            raise RefusedError(
                f"there is no model {failures.shown(name)} here", f"This server has {self.model.name}", param="model",
                code="model_not_found", status=404,
            )  # fmt: skip

    async def chat(self, body: ChatBody, request: Request) -> Response:
        """``POST /v1/chat/completions``."""
        self.check_name(body.model)
        messages = [message.message() for message in body.messages]
        # Long texts take a while to encode; others go on meanwhile.
        tokens = await asyncio.to_thread(self.model.chat_prompt, messages)
        prompts = [(tokens, self.model.room(tokens, body.most_tokens))]
        return await self._answer(ChatAnswer(self.model, logprobs=body.logprobs), body, prompts, request)

    async def complete(self, body: CompletionBody, request: Request) -> Response:
        """``POST /v1/completions``."""
        self.check_name(body.model)
        encode = self.model.text_prompt
        prompts: Prompts = []
        for prompt in body.prompt:
            tokens = await asyncio.to_thread(encode, prompt) if isinstance(prompt, str) else prompt
            prompts.append((tokens, self.model.room(tokens, body.max_tokens)))
        answer = CompletionAnswer(self.model, logprobs=body.logprobs is not None)
        return await self._answer(answer, body, prompts, request)

    async def _answer(self, answer: Answer, body: SamplingBody, prompts: Prompts, request: Request) -> Response:
        requests = [(tokens, self._params(body, max_tokens)) for tokens, max_tokens in prompts]
        usage = Usage(sum(len(tokens) for tokens, _ in prompts))
        generation = await self.loop.submit(requests, stream=body.stream)
        if body.stream:
            return EventStream(answer, generation, samples=body.n, usage=usage if body.include_usage else None)

        async def collect() -> dict[int, dict[str, Any]]:
            choices = {}
            async for prompt, event in generation:
                assert event.completion is not None, "asked without stream"
                usage.completion_tokens += len(event.completion.logprobs)
                index = prompt * body.n + event.sample
                choices[index] = answer.whole(index, event.completion)
            return choices

        try:
            choices = await unless_client_leaves(request, collect())
        except ClientLeftError:
            return Response(status_code=499)  # for the access log alone
        finally:
            generation.close()
        return json_response(answer.response([choices[index] for index in sorted(choices)], usage))

    def _params(self, body: SamplingBody, max_tokens: int) -> SamplingParams:
        seed = body.seed
        if seed is None:
            seed = derive_seed(self.seed, "request", self._unseeded)
            self._unseeded += 1
        return SamplingParams(
            max_tokens=max_tokens, temperature=body.temperature, top_p=body.top_p, top_k=body.top_k, n=body.n,
            seed=seed, stop=tuple(body.stop), stop_tokens=self.model.stop_tokens,
        )  # fmt: skip
