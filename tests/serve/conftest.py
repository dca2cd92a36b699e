"""A real server on a free port, in a thread of the test process."""

import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import openai
import pytest
import torch

from herdlm.generate import Engine
from herdlm.model.hf import save_folder
from herdlm.serve.api.app import create_app
from herdlm.serve.api.service import Service
from herdlm.serve.server import Server, base_url, bind
from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.models import Models
from herdlm.serve.workers.worker import serve_connection
from herdlm.tokens.tokenizer import SPECIAL_TOKENS
from tests.conftest import small_model
from tests.serve.guard.tiny_guard import train_guard

WAIT_SECONDS = 60


@dataclass
class Running:
    """A server that runs: its insides, and a client's way to it."""

    service: Service
    url: str
    engine: Engine
    server: Server

    @property
    def text(self) -> ModelText:
        return self.service.models.default.text

    @property
    def client(self) -> openai.OpenAI:
        return self.client_with("none")

    def client_with(self, key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=WAIT_SECONDS)

    @property
    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=2 * WAIT_SECONDS)


class WorkerThread:
    """A worker in a thread instead of a process, so that a test can reach its engine."""

    def __init__(self, engine, connection):
        self.pid = os.getpid()
        self.connection = connection.dup()
        self.code = 0
        self.thread = threading.Thread(target=self._run, args=(engine,), daemon=True)
        self.thread.start()

    def _run(self, engine):
        try:
            serve_connection(self.connection, lambda options: engine, lambda: None)
        except Exception:
            self.code = 1
        for request in list(engine.requests):  # as they end with a process
            engine.abort(request)
        self.kill()

    def kill(self):
        with suppress(OSError):
            self.connection.shutdown(2)

    def wait(self, timeout=None):
        self.thread.join(timeout)
        return self.code


@contextmanager
def running(folder, *, engine=None, models=None, **options):
    """A server of one model with a worker in a thread; or of ``models`` as they are."""
    if models is None:
        # In float64 no rounding decides what is drawn, whatever else is in the batch.
        engine = engine or Engine.load(folder, dtype=torch.float64)
        models = Models([ModelText.read(folder)], launch=lambda connection: WorkerThread(engine, connection))
    app = create_app(models, **options)
    ready = threading.Event()
    with bind("127.0.0.1", 0) as listener:
        listener.listen(2048)
        server = Server(app, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert ready.wait(WAIT_SECONDS)
            yield Running(app.state.service, base_url(listener), engine, server)
        finally:
            with suppress(RuntimeError):  # a server that a test has ended may have closed its loop
                server._loop.call_soon_threadsafe(server.end)
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()


@torch.no_grad()
def endless_model():
    """A small model that never draws a special token, so that tests decide where answers end."""
    model = small_model()
    model.model.embed_tokens.weight[:, 0] = 1.0  # a channel that is positive wherever the model stands
    head = model.lm_head.weight
    head *= 8  # distinct preferences, so that rounding decides nothing
    head[:, 0] = 0.0
    head[-len(SPECIAL_TOKENS) :, 0] = -20.0
    return model


def write_model(folder, tokenizer):
    save_folder(endless_model(), folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory, tokenizer):
    """A model folder named flagship."""
    return write_model(tmp_path_factory.mktemp("models") / "flagship", tokenizer)


@pytest.fixture(scope="session")
def server(folder):
    with running(folder) as server:
        yield server


@pytest.fixture
def client(server):
    return server.client


@pytest.fixture(scope="session")
def engine_apart(folder):
    """An engine of the same model that no server drives."""
    return Engine.load(folder, dtype=torch.float64)


@pytest.fixture(scope="session")
def guard_folder(tmp_path_factory):
    """A tiny guard that tells harmful words from others."""
    return train_guard(tmp_path_factory.mktemp("guard") / "guard")
