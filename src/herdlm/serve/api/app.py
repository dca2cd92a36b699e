"""The OpenAI-compatible web application around one or more models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from starlette.middleware.cors import CORSMiddleware

from herdlm import __version__
from herdlm.serve.access.keys import KeyFile
from herdlm.serve.access.limits import ConcurrencyLimiter, ServerLimits
from herdlm.serve.access.middleware import AccessMiddleware, Gate
from herdlm.serve.access.responses import json_response
from herdlm.serve.api.chat import ChatBody, TokenizeBody
from herdlm.serve.api.dialects import dialects
from herdlm.serve.api.errors import install_error_handlers
from herdlm.serve.api.reading import BodyRoute
from herdlm.serve.api.requests import CompletionBody, DetokenizeBody, EmbeddingBody
from herdlm.serve.api.service import Service
from herdlm.serve.guard.moderation import Moderator
from herdlm.serve.metrics import Metrics
from herdlm.serve.page import page_router
from herdlm.serve.workers.models import Models

READ = ["GET", "HEAD"]


def create_app(
    models: Models,
    *,
    seed: int = 0,
    limits: ServerLimits | None = None,
    keys: KeyFile | None = None,
    log_texts: bool = False,
    moderator: Moderator | None = None,
    loopback_only: bool = False,
    cors_origins: Sequence[str] = (),
) -> FastAPI:
    """Create the application. It stops all workers when it shuts down.

    Args:
        seed: a request without a seed samples with one derived from this and the number of such requests before it.
        keys: who may send requests; None lets everyone in.
        log_texts: write prompts to the access log.
        loopback_only: refuse requests whose header Host names another machine.
        moderator: a guard for prompts and answers. The server starts it, the application stops it.
        cors_origins: web pages of these origins may send requests from a browser; "*" stands for all.
    """
    limits = limits or ServerLimits()
    concurrency, gate = ConcurrencyLimiter(limits.samples), Gate()
    service, metrics = (
        Service(models, concurrency, limits, seed, log_texts, moderator=moderator),
        Metrics(models, concurrency),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await models.stop()
            if moderator:
                await moderator.stop()

    # FastAPI's interactive pages are off: they load scripts from another host.
    app = FastAPI(title="herdlm", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service, app.state.gate, app.state.limits = service, gate, limits
    install_error_handlers(app)
    app.include_router(_api(service))
    app.include_router(dialects(service))
    app.include_router(_model_list(models, service))
    app.include_router(_operations(models, gate, metrics))
    app.include_router(page_router())
    app.add_middleware(
        AccessMiddleware, keys=keys, limits=limits, gate=gate, count=metrics.count, loopback_only=loopback_only
    )
    if cors_origins:  # outermost: a browser asks first, without a key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    return app


def _api(service: Service) -> APIRouter:
    """Routes of the models and their tokenizers."""
    router = APIRouter(route_class=BodyRoute)

    @router.post("/v1/chat/completions")
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        """Answer a chat."""
        return await service.chat(body, request)

    @router.post("/v1/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        """Continue one or more texts."""
        return await service.complete(body, request)

    @router.post("/v1/embeddings")
    async def embeddings(body: EmbeddingBody, request: Request) -> Response:
        """Embed texts: the mean of the last hidden states, scaled to length 1."""
        return await service.embed(body, request)

    @router.post("/tokenize")
    async def tokenize(body: TokenizeBody, request: Request) -> Response:
        """The token ids of a text or a dialog."""
        return await service.tokenize(body, request)

    @router.post("/detokenize")
    async def detokenize(body: DetokenizeBody, request: Request) -> Response:
        """The text of token ids."""
        return await service.detokenize(body, request)

    return router


def _model_list(models: Models, service: Service) -> APIRouter:
    router = APIRouter()

    @router.api_route("/v1/models", methods=READ)
    async def every_model() -> Response:
        """List the models."""
        return json_response({"object": "list", "data": [model.description() for model in models]})

    @router.api_route("/v1/models/{name:path}", methods=READ)
    async def one_model(name: str) -> Response:
        """Describe one model."""
        return json_response(models.find(name).description())

    @router.api_route("/tokenizer_info", methods=READ)
    async def tokenizer_info(model: str | None = None) -> Response:
        """Special tokens and chat template of a model, for clients that count tokens with this server."""
        format = service.text_of(model).format
        names = ("bos_token", "eos_token", "pad_token")
        return json_response(
            {name: format.tokenizer.named.get(name) for name in names} | {"chat_template": format.template_text}
        )

    return router


def _operations(models: Models, gate: Gate, metrics: Metrics) -> APIRouter:
    """Routes for operators."""
    router = APIRouter()

    @router.api_route("/health", methods=READ)
    @router.api_route("/health/ready", methods=READ)
    async def health() -> Response:
        """Status 200 when ready; 503 while the server drains or its first model is not ready."""
        ready = models.default.backend.ready or not models.default.resident
        status = "draining" if gate.draining else "ok" if ready else "starting"
        body = {"status": status, "models": {model.text.name: model.backend.ready for model in models}}
        return json_response(body, 200 if status == "ok" else 503)

    @router.api_route("/health/live", methods=READ)
    async def live() -> Response:
        """Status 200 as long as the server process runs."""
        return json_response({"status": "ok"})

    @router.api_route("/metrics", methods=READ)
    async def prometheus() -> Response:
        """Metrics for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
