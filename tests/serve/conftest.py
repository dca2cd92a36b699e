"""A real server on a free port, in a thread of the test process."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace

import openai
import pytest
import torch
import uvicorn

from herdlm.generate import Engine
from herdlm.model.hf import save_folder
from herdlm.serve.app import Service, create_app
from herdlm.serve.run import LOGGING, Server, base_url, bind
from herdlm.serve.served import ServedModel
from herdlm.tokens.tokenizer import SPECIAL_TOKENS
from tests.conftest import small_model

WAIT_SECONDS = 20


@dataclass
class Running:
    """A server that runs: its insides, and a client's way to it."""

    service: Service
    url: str

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=WAIT_SECONDS)

    @property
    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=2 * WAIT_SECONDS)


@contextmanager
def running(folder, seed=0):
    # In float64 no rounding decides what is drawn, whatever else is in the batch.
    model = replace(ServedModel.load(folder), engine=Engine.load(folder, dtype=torch.float64))
    app = create_app(model, seed=seed)
    ready = threading.Event()
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        config = uvicorn.Config(app, log_config=LOGGING, timeout_graceful_shutdown=1)
        server = Server(config, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert ready.wait(WAIT_SECONDS)
            yield Running(app.state.service, base_url(listener))
        finally:
            server.should_exit = True
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
