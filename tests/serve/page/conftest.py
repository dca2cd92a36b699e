"""The page in headless Chromium, before a real server of a tiny model or one that says what a test has written."""

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from herdlm.serve.page import page_router
from herdlm.serve.run import LOGGING, Server, base_url, bind

WAIT = 15_000  # milliseconds for whatever must come


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
    ready = threading.Event()
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        server = Server(uvicorn.Config(app, log_config=LOGGING, timeout_graceful_shutdown=1), ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert ready.wait(20)
            yield base_url(listener).removesuffix("/v1")
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """A server whose answers the test writes."""
    script = Scripted()
    with served(script.app()) as url:
        script.url = url
        yield script


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "this test needs Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page and what happened on it."""

    page: Any
    requests: list[str]
    problems: list[str]

    def say(self, text: str) -> None:
        """Send a message."""
        self.page.get_by_label("Your message").fill(text)
        self.page.get_by_label("Your message").press("Enter")

    def answers(self):
        return self.page.locator("article.answer")

    def finished(self, count: int = 1) -> None:
        """Wait until so many answers are there and none grows."""
        from playwright.sync_api import expect

        expect(self.answers()).to_have_count(count, timeout=WAIT)
        expect(self.page.locator("article.growing")).to_have_count(0, timeout=WAIT)


@pytest.fixture
def visit(browser):
    """Opens an address in a new profile; the test fails if the page logged an error that it does not take."""
    contexts, visits = [], []

    def open_(url: str, *, takes: tuple[str, ...] = (), models: bool = True, **options: Any) -> Visit:
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 800}} | options))
        context.set_default_timeout(WAIT)
        contexts.append(context)
        page = context.new_page()
        found = Visit(page, [], [])
        page.on("request", lambda request: found.requests.append(request.url))
        page.on("pageerror", lambda error: found.problems.append(str(error)))
        page.on("console", lambda line: line.type in ("error", "warning") and found.problems.append(line.text))
        visits.append((found, takes))
        page.goto(url)
        if models:
            page.locator("#model option").first.wait_for(state="attached")
        return found

    yield open_
    for context in contexts:
        context.close()
    for found, takes in visits:
        left = [problem for problem in found.problems if not any(part in problem for part in takes)]
        assert left == [], left
