"""The engine's thread: what it holds is freed when clients leave, and nobody waits when it breaks down."""

import asyncio
import threading
import time

import httpx
import openai
import pytest

from herdlm.base.errors import InputError
from herdlm.generate import Engine, SamplingParams
from herdlm.serve.loop import EngineFailedError, EngineLoop
from tests.conftest import small_model
from tests.serve.conftest import WAIT_SECONDS, running

CHAT = {"model": "flagship", "messages": [{"role": "user", "content": "Hello"}]}
LONG = {**CHAT, "max_tokens": 200, "n": 4}


@pytest.fixture
def slow(folder):
    """A server whose engine needs longer for ``LONG`` than any test waits: it must be stopped to come to rest."""
    with running(folder) as server:
        engine = server.service.model.engine
        step = engine.step

        def unhurried():
            time.sleep(0.15)
            return step()

        engine.step = unhurried
        yield server


def eventually(condition):
    deadline = time.monotonic() + WAIT_SECONDS / 2
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def held(server):
    return int((server.service.model.engine.pool.references > 0).sum())


def test_a_client_that_leaves_a_stream_frees_its_pages(slow):
    with slow.client as client:
        stream = client.chat.completions.create(**LONG, stream=True)
        for _ in range(8):
            next(stream)
        assert held(slow) > 0 and slow.service.model.engine.busy
        stream.close()
        eventually(lambda: not slow.service.model.engine.busy)
    assert held(slow) == 0


def test_a_client_that_leaves_a_whole_answer_frees_its_pages(slow):
    with pytest.raises(openai.APITimeoutError):
        slow.client.with_options(timeout=0.3).chat.completions.create(**LONG)
    eventually(lambda: not slow.service.model.engine.busy)
    assert held(slow) == 0
    assert slow.client.chat.completions.create(**CHAT, max_tokens=2).usage.completion_tokens <= 2


def test_when_the_engine_fails_all_who_wait_are_told_and_all_who_come(slow):
    engine = slow.service.model.engine
    told = []

    def whole():
        try:
            slow.client.chat.completions.create(**LONG)
        except openai.InternalServerError as error:
            told.append(error)

    def streamed():
        try:
            list(slow.client.chat.completions.create(**LONG, stream=True))
        except openai.APIError as error:
            told.append(error)

    threads = [threading.Thread(target=work) for work in (whole, whole, streamed, streamed)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(engine.requests) == 4)

    def broken():
        raise RuntimeError("the device is gone")

    engine.step = broken
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert len(told) == 4
    assert all("the engine failed: the device is gone" in str(error) for error in told)
    with pytest.raises(openai.InternalServerError, match="the device is gone") as caught:
        slow.client.completions.create(model="flagship", prompt="x")
    assert caught.value.status_code == 503 and caught.value.code == "engine_failed"
    health = httpx.get(slow.url.removesuffix("v1") + "health")
    assert health.status_code == 503
    assert health.json()["status"] == "failed" and "the device is gone" in health.json()["error"]


def test_a_server_that_ends_does_not_wait_for_ever_for_a_long_answer(folder):
    with running(folder) as server:
        engine = server.service.model.engine
        step = engine.step
        engine.step = lambda: [time.sleep(0.2), step()][1]
        stream = server.client.chat.completions.create(**LONG, stream=True)
        next(stream)
    # ``running`` has seen the server's thread end.
    with pytest.raises((httpx.HTTPError, openai.APIError)):
        list(stream)
    assert not engine.busy


def test_a_healthy_server_says_so(server):
    health = httpx.get(server.url.removesuffix("v1") + "health")
    assert (health.status_code, health.json()) == (200, {"status": "ok", "model": "flagship"})


def within(work):
    return asyncio.run(asyncio.wait_for(work, WAIT_SECONDS))


@pytest.fixture
def engine(tokenizer):
    return Engine(small_model(), tokenizer, max_batch=4)


PARAMS = SamplingParams(max_tokens=20, seed=3)


def test_what_comes_together_is_what_comes_alone(engine):
    prompts = [[1, 2, 3], [4, 5], [6] * 30, [7], [8, 9]]
    alone = [completions[0].tokens for prompt in prompts for completions in engine.generate([prompt], PARAMS)]

    async def one(loop, prompt):
        generation = await loop.submit([(prompt, PARAMS)])
        return [token async for _, event in generation for token in event.tokens]

    async def together():
        loop = EngineLoop(engine)
        loop.start()
        try:
            return await asyncio.gather(*(one(loop, prompt) for prompt in prompts))
        finally:
            await loop.stop()

    assert within(together()) == alone


def test_a_wrong_prompt_is_refused_and_others_go_on(engine):
    async def work():
        loop = EngineLoop(engine)
        loop.start()
        good = await loop.submit([([1, 2], PARAMS)])
        with pytest.raises(InputError, match="token ids"):
            await loop.submit([([1, 2], PARAMS), ([4000], PARAMS)])
        finished = [event.completion async for _, event in good if event.completion]
        assert not engine.requests
        await loop.stop()
        return finished

    assert len(within(work())) == 1


def test_stopping_ends_what_waits_and_refuses_what_comes(engine):
    async def work():
        loop = EngineLoop(engine)
        loop.start()
        generation = await loop.submit([([1, 2], SamplingParams(max_tokens=250))])
        await loop.stop()
        with pytest.raises(EngineFailedError, match="shutting down"):
            async for _ in generation:
                pass
        with pytest.raises(EngineFailedError, match="shutting down"):
            await loop.submit([([1], PARAMS)])
        generation.close()
        assert not engine.busy

    within(work())


def test_a_submission_given_up_before_it_was_accepted_leaves_nothing(engine):
    async def work():
        loop = EngineLoop(engine)
        loop.start()
        task = asyncio.create_task(loop.submit([([1, 2], SamplingParams(max_tokens=250, n=2))]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        later = await loop.submit([([3], SamplingParams(max_tokens=2))])
        assert [event async for _, event in later][-1].completion
        assert not engine.busy and not loop._running
        await loop.stop()

    within(work())
