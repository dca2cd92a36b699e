"""A server of OpenAI's protocol that says what a test has written."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from herdlm.serve.page import page_router
from herdlm.serve.server import base_url, bind


@dataclass
class Scripted:
    """A server that streams what ``answer`` gives for a request's body: texts, chunks, pauses in seconds, raw bytes.

    Attributes:
        asked: bodies of chat requests, with their headers.
        left: how many answers were given up by the client.
    """

    url: str = ""
    models: list[str] = field(default_factory=lambda: ["flagship", "small"])
    key: str | None = None
    answer: Callable[[dict[str, Any]], Any] = lambda body: ["Hello"]
    asked: list[tuple[dict[str, Any], dict[str, str]]] = field(default_factory=list)
    left: int = 0

    def app(self) -> FastAPI:
        app = FastAPI()
        app.include_router(page_router())

        def refused(request: Request) -> JSONResponse | None:
            if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
                return failure(401, "give a valid key")
            return None

        @app.get("/v1/models")
        async def models(request: Request):
            data = [{"id": name, "object": "model", "max_model_len": 4096} for name in self.models]
            return refused(request) or {"object": "list", "data": data}

        @app.post("/v1/chat/completions")
        async def chat(request: Request):
            body = await request.json()
            self.asked.append((body, dict(request.headers)))
            found = refused(request) or self.answer(body)
            if isinstance(found, JSONResponse):
                return found
            return StreamingResponse(self._stream(found), media_type="text/event-stream")

        return app

    async def _stream(self, pieces):
        try:
            for piece in pieces:
                if isinstance(piece, bytes):
                    yield piece
                elif isinstance(piece, int | float):
                    await asyncio.sleep(piece)
                elif isinstance(piece, dict):
                    yield event(piece)
                else:
                    yield event(delta(piece))
                    await asyncio.sleep(0)
            else:
                usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
                yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
                yield event({"choices": [], "usage": usage})
                yield b"data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.left += 1
            raise


def event(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()


def delta(text: str, logprobs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    told = {"content": logprobs} if logprobs else None
    return {"choices": [{"index": 0, "delta": {"content": text}, "logprobs": told, "finish_reason": None}]}


def failure(status: int, message: str, headers: dict[str, str] | None = None, **more: Any) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "param": None, "code": None} | more}, status, headers)


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address at which ``app`` answers, in a thread of this process."""
    with bind("127.0.0.1", 0) as listener:
        listener.listen(128)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield base_url(listener).removesuffix("/v1")
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
