"""Several models: loaded when asked for, unloaded for others when idle, each with a process of its own."""

import asyncio
import os
import signal
import threading

import openai
import pytest

from herdlm.base.errors import InputError
from herdlm.generate import Engine
from herdlm.serve.errors import RefusedError
from herdlm.serve.guard.moderation import Moderator
from herdlm.serve.server import serve
from herdlm.serve.workers import worker
from herdlm.serve.workers.memory import PROCESS_BYTES, estimate_memory
from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.models import GIB, Models
from herdlm.serve.workers.protocol import WorkerInfo, WorkerOptions
from tests.serve.conftest import WorkerThread, running, write_model
from tests.serve.workers.test_backend import eventually, within


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer):
    base = tmp_path_factory.mktemp("three")
    return [write_model(base / name, tokenizer) for name in ("one", "two", "three")]


def in_threads(folders, **options):
    def launch(connection):
        return WorkerThread(Engine.load(folders[0], cache_tokens=1024), connection)

    texts = [ModelText.read(folder) for folder in folders]
    return Models(texts, launch=launch, cache_tokens=1024, **options)


@pytest.fixture
def room_for_two(folders, monkeypatch):
    need = next(iter(in_threads(folders))).bytes
    monkeypatch.setattr(worker, "memory_bytes", lambda engine: need // 2)  # less than was estimated
    return in_threads(folders, memory_gib=1.75 * need / GIB, wait_seconds=0.3)


def loaded(models):
    return [model.text.name for model in models if model.backend.ready]


def test_the_least_recently_used_idle_model_makes_room(room_for_two):
    models = room_for_two

    async def work():
        (await models.lease("one")).close()
        (await models.lease("two")).close()
        assert loaded(models) == ["one", "two"]
        (await models.lease("one")).close()
        (await models.lease("three")).close()
        assert loaded(models) == ["one", "three"]
        assert (models.loads, models.evictions) == (3, 1)
        await models.stop()

    within(work())


def test_a_guard_takes_its_part_of_the_memory(folders, guard_folder, monkeypatch):
    need = next(iter(in_threads(folders))).bytes
    monkeypatch.setattr(worker, "memory_bytes", lambda engine: need // 2)
    engine = Engine.load(guard_folder)
    guard = Moderator(guard_folder, launch=lambda connection: WorkerThread(engine, connection))
    with pytest.raises(InputError, match=r"one needs about .* GiB beside the guard's .*, the limit is .* --memory-gib"):
        in_threads(folders, memory_gib=(need + guard.bytes - 1) / GIB, guard_bytes=lambda: guard.bytes)
    estimated = guard.bytes
    models = in_threads(
        folders, memory_gib=(need + estimated + 1) / GIB, guard_bytes=lambda: guard.bytes, wait_seconds=0.3
    )

    async def work():
        await guard.start()
        assert guard.bytes == need // 2 < estimated  # measured now
        for name in ("one", "two"):
            (await models.lease(name)).close()
        assert loaded(models) == ["one", "two"]  # in what the guard left
        guard.backend.info = WorkerInfo(guard.backend.info.context, need + estimated)  # above the estimate
        with pytest.raises(RefusedError, match="three needs about .* beside the guard's") as caught:
            await models.lease("three")
        assert (caught.value.status, caught.value.code) == (503, "no_memory")
        await models.stop()
        await guard.stop()

    within(work())


def test_every_process_of_a_model_takes_memory(folders):
    text = ModelText.read(folders[0])
    alone, divided = (estimate_memory(text, WorkerOptions(str(text.folder), "cpu", "auto", 1024, n, n)) for n in (1, 2))
    assert divided - alone == 3 * PROCESS_BYTES


def test_a_model_at_work_is_not_unloaded(room_for_two):
    models = room_for_two

    async def work():
        one, two = await models.lease("one"), await models.lease("two")
        with pytest.raises(RefusedError, match="no memory for three") as caught:
            await models.lease("three")
        assert (caught.value.status, caught.value.code) == (503, "busy")
        waiting = asyncio.create_task(models.lease("three"))
        await asyncio.sleep(0.1)
        two.close()
        (await waiting).close()
        assert loaded(models) == ["one", "three"]
        one.close()
        await models.stop()

    within(work())


def test_requests_for_a_model_being_loaded_wait_for_the_one_load(folders):
    models = in_threads(folders)

    async def work():
        leases = await asyncio.gather(*(models.lease("two") for _ in range(5)))
        assert models.loads == 1 and models.find("two").users == 5
        for lease in leases:
            lease.close()
            lease.close()
        assert models.find("two").users == 0
        await models.stop()

    within(work())


def test_what_cannot_be_served_is_told_at_once(folders):
    with pytest.raises(InputError, match=r"one needs about .* GiB, the limit is 0\.01"):
        in_threads(folders, memory_gib=0.01)
    with pytest.raises(InputError, match=r"two models are called one.*NAME=FOLDER"):
        serve([folders[0], folders[0]], port=0)
    with pytest.raises(InputError, match="does not exist"):
        serve([folders[0], f"big={folders[0]}-gone"], port=0)


@pytest.fixture(scope="module")
def processes(folders):
    """A server of two models with processes as workers, as it runs in earnest."""
    with running(None, models=Models([ModelText.read(folder) for folder in folders[:2]])) as server:
        yield server


def test_all_models_are_listed_and_answer_each_by_its_name(processes):
    client = processes.client
    listed = {model.id: model.loaded for model in client.models.list().data}
    assert set(listed) == {"one", "two"} and listed["one"]
    answers = [client.completions.create(model=name, prompt="The", temperature=0) for name in ("one", "two")]
    assert [answer.model for answer in answers] == ["one", "two"]
    assert answers[0].choices[0].text == answers[1].choices[0].text  # of the same weights
    for model in processes.service.models:  # what it told is what the system counts, with the cache beside it
        estimate = estimate_memory(model.text, model.backend.options)
        assert 0.3 * estimate < model.bytes < 3 * estimate
    one, two = (processes.service.models.find(name).backend.pid for name in ("one", "two"))
    assert len({one, two, os.getpid()}) == 3


def test_a_killed_worker_fails_its_own_requests_alone_and_is_replaced(processes):
    backend = processes.service.models.find("one").backend
    text = {"model": "one", "prompt": "The", "max_tokens": 240}
    client, told = processes.client, []
    client.completions.create(**text | {"model": "two", "max_tokens": 1})
    streams = [client.completions.create(**text, n=8, stream=True) for _ in range(2)]
    for stream in streams:
        next(stream)
    before = backend.pid
    os.kill(before, signal.SIGSTOP)

    def whole():
        try:
            client.completions.create(**text)
        except openai.InternalServerError as error:
            told.append(error)

    thread = threading.Thread(target=whole)
    thread.start()
    eventually(lambda: len(backend._in_flight) == 3)
    os.kill(before, signal.SIGKILL)
    for stream in streams:
        with pytest.raises(openai.APIError, match="the worker of one failed: ended by signal 9"):
            list(stream)
    thread.join()
    assert (told[0].status_code, told[0].code) == (503, "worker_failed")
    assert told[0].response.headers["retry-after"] == "1"
    assert client.completions.create(**text | {"model": "two"}).usage.completion_tokens == 240
    assert client.completions.create(**text).usage.completion_tokens == 240
    assert backend.pid != before and backend.restarts == 1
