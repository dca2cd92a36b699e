"""The end of a server: what runs may finish, what comes is sent away, what takes too long is told."""

import asyncio
import time

import httpx
import openai
import pytest

from herdlm.serve.access.limits import ServerLimits
from tests.serve.conftest import running
from tests.serve.workers.test_backend import eventually

TEXT = {"model": "flagship", "prompt": "The", "max_tokens": 40, "seed": 1}


@pytest.fixture
def slow(folder, request):
    with running(folder, limits=ServerLimits(drain_seconds=request.param)) as server:
        step = server.engine.step
        server.engine.step = lambda: [time.sleep(0.03), step()][1]
        yield server


def drain(server):
    server.server._loop.call_soon_threadsafe(server.server.end)
    eventually(lambda: server.server._gate.draining)


@pytest.mark.parametrize("slow", [30], indirect=True)
def test_while_it_drains_answers_under_way_end_and_new_requests_are_sent_away(slow):
    client = slow.client
    whole = client.completions.create(**TEXT).choices[0].text
    stream = client.completions.create(**TEXT, stream=True)
    text = next(stream).choices[0].text
    drain(slow)
    with pytest.raises(openai.InternalServerError, match="shutting down") as caught:
        slow.client.completions.create(**TEXT)
    assert (caught.value.status_code, caught.value.code) == (503, "shutting_down")
    assert int(caught.value.response.headers["retry-after"]) >= 1
    base = slow.url.removesuffix("/v1")
    ready = httpx.get(f"{base}/health")
    assert (ready.status_code, ready.json()["status"]) == (503, "draining")
    assert httpx.get(f"{base}/health/live").status_code == 200
    assert httpx.get(f"{base}/metrics").status_code == 200
    text += "".join(chunk.choices[0].text for chunk in stream)
    assert text == whole
    eventually(lambda: slow.server.should_exit)


@pytest.mark.parametrize("slow", [0.3], indirect=True)
def test_what_takes_longer_than_the_limit_is_told_that_the_server_ends(slow):
    stream = slow.client.completions.create(**TEXT | {"max_tokens": 240}, stream=True)
    next(stream)
    drain(slow)
    with pytest.raises(openai.APIError, match="the server is shutting down"):
        list(stream)
    eventually(lambda: slow.server.should_exit and not slow.engine.busy)


@pytest.mark.parametrize("slow", [30], indirect=True)
def test_a_second_signal_ends_it_at_once(slow):
    stream = slow.client.completions.create(**TEXT | {"max_tokens": 240}, stream=True)
    next(stream)
    drain(slow)
    slow.server._loop.call_soon_threadsafe(slow.server.end)
    eventually(lambda: slow.server.force_exit)
    with pytest.raises((openai.APIError, httpx.HTTPError)):
        list(stream)


@pytest.mark.parametrize("slow", [30], indirect=True)
def test_an_idle_server_ends_at_once(slow):
    asyncio.run(asyncio.sleep(0))
    drain(slow)
    eventually(lambda: slow.server.should_exit)
