"""Limits of keys, of the server and of single requests; requests over a limit get 429 with Retry-After."""

import asyncio
import json
import socket
import time

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.serve.access.keys import Key, KeyFile
from herdlm.serve.access.limits import ConcurrencyLimiter, KeyLimiter, ServerLimits, TokenBucket
from herdlm.serve.errors import RefusedError
from tests.serve.conftest import running
from tests.serve.workers.test_backend import eventually

TEXT = {"model": "flagship", "prompt": "The", "max_tokens": 200}


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@given(st.integers(1, 1000), st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50)), min_size=1, max_size=60))
def test_no_window_of_time_gives_more_than_the_rate_and_one_full_bucket(rate, records):
    clock = Clock()
    bucket, taken = TokenBucket(rate, clock), []
    for pause, amount in records:
        clock.now += pause
        if not bucket.wait(amount):
            bucket.take(amount)
            taken.append((clock.now, amount))
    for i, (begin, _) in enumerate(taken):
        for j in range(i, len(taken)):
            end, last = taken[j]
            window = sum(amount for _, amount in taken[i : j + 1])
            assert window <= rate + (end - begin) * rate / 60 + max(last - rate, 0) + 50 + 1e-6


@given(st.integers(1, 600), st.integers(1, 2000))
def test_after_the_time_it_tells_a_bucket_gives(rate, amount):
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    bucket.take(rate + amount)
    clock.now += bucket.wait(1)
    assert bucket.wait(1) == pytest.approx(0, abs=1e-6)


def entry(**limits):
    return Key(name="ann", sha256="0" * 64, created=0, **limits)


def test_a_keys_requests_and_tokens_are_counted_by_the_minute():
    clock = Clock()
    key_limiter, key = KeyLimiter(clock), entry(requests_per_minute=2)
    for _ in range(2):
        key_limiter.admit(key).running -= 1
    with pytest.raises(RefusedError, match="2 requests a minute") as caught:
        key_limiter.admit(key)
    assert (caught.value.status, caught.value.retry_after) == (429, 30)
    clock.now = 30
    key_limiter.admit(key)
    tokens = entry(tokens_per_minute=60)
    usage = key_limiter.admit(tokens)
    KeyLimiter.charge_prompt(usage, 50)
    KeyLimiter.charge_completion(usage, 30)
    with pytest.raises(RefusedError, match="60 tokens a minute") as caught:
        key_limiter.admit(tokens)
    assert caught.value.retry_after == 21  # 20 overdrawn, and one to go on with
    with pytest.raises(RefusedError, match="the prompt has 11"):
        KeyLimiter.charge_prompt(usage, 11)


def test_a_crowd_is_bounded_and_tells_when_to_come_again():
    clock = Clock()
    concurrency = ConcurrencyLimiter(4, clock)
    with pytest.raises(RefusedError, match="at most 4") as caught:
        concurrency.acquire(5)
    assert caught.value.status == 400
    concurrency.acquire(4)
    with pytest.raises(RefusedError) as caught:
        concurrency.acquire(1)
    assert (caught.value.status, caught.value.retry_after, caught.value.code) == (429, 5, "server_busy")
    concurrency.release(2)
    concurrency.acquire(2)
    with pytest.raises(RefusedError) as caught:
        concurrency.acquire(1)
    assert caught.value.retry_after == 15  # two ended in the last 30 seconds


@pytest.fixture(params=[600])
def slow(folder, tmp_path, request):
    """A server with narrow limits, the parameter that of a request's seconds.

    Its engine needs longer for ``TEXT`` than any test waits.
    """
    file = KeyFile(tmp_path / "keys.json")
    keys = {"one": file.add("one", concurrent=1), "few": file.add("few", tokens_per_minute=100), "all": file.add("all")}
    limits = ServerLimits(samples=3, body_bytes=2000, body_seconds=2, request_seconds=request.param)
    with running(folder, keys=file, limits=limits) as server:
        step = server.engine.step
        server.engine.step = lambda: [time.sleep(0.2), step()][1]
        server.keys = keys
        yield server


def test_a_key_has_so_many_requests_at_once(slow):
    with slow.client_with(slow.keys["one"]) as client:
        stream = client.completions.create(**TEXT, stream=True)
        next(stream)
        with pytest.raises(openai.RateLimitError, match="1 requests running") as caught:
            client.completions.create(**TEXT)
        assert caught.value.response.headers["retry-after"] == "1"
        stream.close()
        eventually(lambda: not slow.engine.busy)
        assert client.completions.create(**TEXT | {"max_tokens": 1})


def test_tokens_drawn_are_charged_to_the_key(slow):
    client = slow.client_with(slow.keys["few"])
    for _ in range(2):
        client.completions.create(**TEXT | {"max_tokens": 1, "prompt": [9] * 45})
    with pytest.raises(openai.RateLimitError, match="100 tokens a minute") as caught:
        client.completions.create(**TEXT | {"max_tokens": 1, "prompt": [9] * 45})
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60


def test_a_full_server_says_429_and_when_to_come_again(slow):
    with slow.client_with(slow.keys["all"]) as client:
        stream = client.completions.create(**TEXT, n=3, stream=True)
        next(stream)
        with pytest.raises(openai.RateLimitError, match="3 answers running") as caught:
            client.completions.create(**TEXT)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        stream.close()
        eventually(lambda: not slow.engine.busy and not slow.service.concurrency.samples)
        assert client.completions.create(**TEXT | {"max_tokens": 1, "n": 3}).usage.completion_tokens == 3


@pytest.mark.parametrize("slow", [1], indirect=True)
def test_a_request_that_takes_too_long_is_told_so(slow):
    client = slow.client_with(slow.keys["all"])
    cut = client.completions.create(**TEXT)
    assert cut.choices[0].finish_reason == "length" and 0 < cut.usage.completion_tokens < TEXT["max_tokens"]
    eventually(lambda: not slow.engine.busy)
    with pytest.raises(openai.APIError, match="took longer"):
        list(client.completions.create(**TEXT, stream=True))
    eventually(lambda: not slow.engine.busy)
    assert int((slow.engine.pool.references > 0).sum()) == 0


def test_a_body_that_is_too_large_or_too_slow_is_refused(slow):
    headers = {"authorization": f"Bearer {slow.keys['all']}", "content-type": "application/json"}
    body = json.dumps(TEXT | {"prompt": "x" * 3000}).encode()
    told = httpx.post(f"{slow.url}/completions", content=body, headers=headers)
    assert (told.status_code, told.json()["error"]["code"]) == (413, "request_too_large")

    def pieces():
        for _ in range(50):
            yield b" " * 100

    told = httpx.post(f"{slow.url}/completions", content=pieces(), headers=headers)
    assert told.status_code == 413  # without a content-length to go by
    host, port = slow.url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        lines = ["POST /v1/completions HTTP/1.1", "host: x", *(f"{k}: {v}" for k, v in headers.items())]
        connection.sendall("\r\n".join([*lines, "content-length: 100", "", "{"]).encode())
        assert b"408" in connection.recv(1000)


def test_a_key_can_be_sent_for_every_request_at_once(slow):
    async def ask(client):
        return await client.completions.create(**TEXT | {"max_tokens": 1})

    async def three():
        client = openai.AsyncOpenAI(base_url=slow.url, api_key=slow.keys["all"], max_retries=0, timeout=60)
        async with client:
            return await asyncio.gather(*(ask(client) for _ in range(3)))

    assert len(asyncio.run(three())) == 3
