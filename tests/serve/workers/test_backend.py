"""A worker's engine: what it holds is freed when clients leave, and nobody waits when it breaks down."""

import asyncio
import json
import threading
import time

import httpx
import openai
import pytest

from herdlm.base.errors import InputError
from herdlm.generate import Engine, SamplingParams
from herdlm.generate.request import params_from_json, params_to_json
from herdlm.generate.sampling.grammar import Grammar
from herdlm.serve.access.limits import ServerLimits
from herdlm.serve.errors import TooLongError, WorkerFailedError
from herdlm.serve.workers.backend import Backend
from herdlm.serve.workers.protocol import WorkerOptions
from tests.conftest import small_model
from tests.serve.conftest import WAIT_SECONDS, WorkerThread, running

CHAT = {"model": "flagship", "messages": [{"role": "user", "content": "Hello"}]}
LONG = {**CHAT, "max_tokens": 200, "n": 4}


@pytest.fixture
def slow(folder):
    """A server whose engine needs longer for ``LONG`` than any test waits: it must be stopped to come to rest."""
    with running(folder, limits=ServerLimits(drain_seconds=0.5)) as server:
        engine = server.engine
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
    return int((server.engine.pool.references > 0).sum())


def test_a_client_that_leaves_a_stream_frees_its_pages(slow):
    with slow.client as client:
        stream = client.chat.completions.create(**LONG, stream=True)
        for _ in range(8):
            next(stream)
        assert held(slow) > 0 and slow.engine.busy
        stream.close()
        eventually(lambda: not slow.engine.busy)
    assert held(slow) == 0


def test_a_client_that_leaves_a_whole_answer_frees_its_pages(slow):
    with pytest.raises(openai.APITimeoutError):
        slow.client.with_options(timeout=0.3).chat.completions.create(**LONG)
    eventually(lambda: not slow.engine.busy)
    assert held(slow) == 0
    assert slow.client.chat.completions.create(**CHAT, max_tokens=2).usage.completion_tokens <= 2


def test_when_the_engine_fails_all_who_wait_are_told_and_all_who_come(slow):
    engine = slow.engine
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

    working, engine.step = engine.step, broken
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert len(told) == 4
    assert all("the worker of flagship failed: RuntimeError: the device is gone" in str(error) for error in told)
    assert {getattr(error, "status_code", "streamed") for error in told} == {503, "streamed"}
    engine.step = working
    answer = slow.client.with_options(max_retries=5).chat.completions.create(**CHAT, max_tokens=2)
    assert answer.usage.completion_tokens <= 2  # by a new worker
    assert slow.service.models.default.backend.restarts >= 1


def test_a_server_that_ends_does_not_wait_for_ever_for_a_long_answer(folder):
    with running(folder, limits=ServerLimits(drain_seconds=0.5)) as server:
        engine = server.engine
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
    assert (health.status_code, health.json()) == (200, {"status": "ok", "models": {"flagship": True}})


def within(work):
    return asyncio.run(asyncio.wait_for(work, WAIT_SECONDS))


@pytest.fixture
def engine(tokenizer):
    return Engine(small_model(), tokenizer, max_batch=4)


@pytest.fixture
def backend(engine):
    return Backend("small", WorkerOptions("nowhere"), lambda connection: WorkerThread(engine, connection))


PARAMS = SamplingParams(max_tokens=20, seed=3)


def test_what_comes_together_is_what_comes_alone(engine, backend):
    prompts = [[1, 2, 3], [4, 5], [6] * 30, [7], [8, 9]]
    alone = [completions[0].tokens for prompt in prompts for completions in engine.generate([prompt], PARAMS)]

    async def one(prompt):
        generation = await backend.submit([(prompt, PARAMS)])
        return [token async for news in generation for token in news.tokens]

    async def together():
        try:
            return await asyncio.gather(*(one(prompt) for prompt in prompts))
        finally:
            await backend.stop()

    assert within(together()) == alone


def test_a_wrong_prompt_is_refused_and_others_go_on(engine, backend):
    async def work():
        good = await backend.submit([([1, 2], PARAMS)])
        with pytest.raises(InputError, match="token ids"):
            await backend.submit([([1, 2], PARAMS), ([4000], PARAMS)])
        finished = [news async for news in good if news.finish_reason]
        assert not engine.requests
        await backend.stop()
        return finished

    assert len(within(work())) == 1


def test_stopping_ends_what_waits_and_starting_begins_anew(engine, backend):
    async def work():
        generation = await backend.submit([([1, 2], SamplingParams(max_tokens=250))])
        await backend.stop()
        with pytest.raises(WorkerFailedError, match="has stopped small"):
            async for _ in generation:
                pass
        generation.close()
        again = await backend.submit([([1, 2], SamplingParams(max_tokens=2))])
        assert [news async for news in again][-1].finish_reason
        await backend.stop()

    within(work())


def test_a_submission_given_up_before_it_was_accepted_leaves_nothing(engine, backend):
    async def work():
        await backend.start()
        task = asyncio.create_task(backend.submit([([1, 2], SamplingParams(max_tokens=250, n=2))]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        later = await backend.submit([([3], SamplingParams(max_tokens=2))])
        assert [news async for news in later][-1].finish_reason
        assert not engine.busy and not backend._in_flight
        await backend.stop()

    within(work())


def test_a_request_that_takes_too_long_fails_and_frees_its_pages(engine, backend):
    async def work():
        generation = await backend.submit([([1, 2], SamplingParams(max_tokens=250))])
        generation.set_deadline(0.0)
        with pytest.raises(TooLongError):
            async for _ in generation:
                pass
        later = await backend.submit([([3], SamplingParams(max_tokens=2))])
        assert [news async for news in later][-1].finish_reason
        assert not engine.busy
        await backend.stop()

    within(work())


def test_a_model_that_cannot_be_loaded_is_told_as_what_it_is(tmp_path):
    async def work():
        backend = Backend("none", WorkerOptions(str(tmp_path)))
        with pytest.raises(InputError, match=r"config\.json"):
            await backend.start()
        assert not backend.ready

    within(work())


def test_parameters_survive_the_wire():
    params = SamplingParams(
        max_tokens=7,
        temperature=0.5,
        top_p=0.25,
        logit_bias=((5, -100.0), (6, 3.5)),
        stop=("a", "é"),
        stop_tokens=(3,),
        grammar=Grammar.json_object(),
        best_of=3,
        n=2,
    )
    row = json.loads(json.dumps(params_to_json(params)))
    assert params_from_json(row) == params
    assert params_from_json(json.loads(json.dumps(params_to_json(SamplingParams())))) == SamplingParams()
