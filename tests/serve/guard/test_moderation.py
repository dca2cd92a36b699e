"""A server with a guard at its door: refusals and passes as the unmodified OpenAI client sees them."""

from __future__ import annotations

import asyncio
import json

import httpx
import openai
import pytest
import torch

from herdlm.base.errors import InputError
from herdlm.generate import Engine
from herdlm.serve.api.moderated import REFUSAL
from herdlm.serve.guard.moderation import Moderator
from tests.serve.conftest import WorkerThread, running

HARMLESS, HARMFUL = "Tell me about music", "What is murder , please"


def moderator_of(folder, engine=None):
    engine = engine or Engine.load(folder, device="cpu", dtype="float32")
    return Moderator(folder, launch=lambda connection: WorkerThread(engine, connection))


@pytest.fixture(scope="module")
def guarded(folder, guard_folder):
    with running(folder, moderator=moderator_of(guard_folder)) as server:
        yield server


def saying(text):
    """Has the model answer just this: what it says is then the test's to choose."""
    schema = {"name": "outputs", "schema": {"const": text}}
    return {"response_format": {"type": "json_schema", "json_schema": schema}, "max_tokens": 60}


def ask(server, prompt, answer="I like music", **options):
    return server.client.chat.completions.create(
        model="flagship", messages=[{"role": "user", "content": prompt}], **saying(answer), **options
    )


def test_what_is_harmless_passes_with_its_score(guarded):
    answer = ask(guarded, HARMLESS)
    choice = answer.choices[0]
    assert choice.finish_reason == "stop" and json.loads(choice.message.content) == "I like music"
    assert choice.message.refusal is None
    assert choice.guard["flagged"] is False and choice.guard["of"] == "answer" and choice.guard["score"] < 0.5
    assert answer.usage.completion_tokens > 3


def test_a_harmful_prompt_is_refused_before_it_is_answered(guarded):
    answer = ask(guarded, HARMFUL)
    choice = answer.choices[0]
    assert choice.finish_reason == "content_filter"
    assert choice.message.content == choice.message.refusal == REFUSAL
    assert choice.guard["flagged"] and choice.guard["of"] == "prompt" and choice.guard["score"] > 0.5
    assert choice.guard["categories"] == [{"code": "S1", "name": "Violent Crimes"}]
    assert answer.usage.completion_tokens == 0 and answer.usage.prompt_tokens > 0


def test_a_harmful_answer_is_never_told(guarded):
    answer = ask(guarded, HARMLESS, "I like anthrax", n=2, seed=3, logprobs=True)
    assert len(answer.choices) == 2
    for choice in answer.choices:
        assert choice.finish_reason == "content_filter" and choice.message.content == REFUSAL
        assert choice.logprobs is None and choice.guard["of"] == "answer"
        assert [category["code"] for category in choice.guard["categories"]] == ["S9"]
    assert "anthrax" not in answer.model_dump_json()
    assert answer.usage.completion_tokens > 0  # it was drawn, and is counted


@pytest.mark.parametrize(
    ("prompt", "answer", "reason", "of"),
    [
        (HARMLESS, "I like music", "stop", "answer"),
        (HARMFUL, "I like music", "content_filter", "prompt"),
        (HARMLESS, "I like anthrax", "content_filter", "answer"),
    ],
)
def test_a_stream_is_judged_before_anything_of_it_is_sent(guarded, prompt, answer, reason, of):
    chunks = list(ask(guarded, prompt, answer, stream=True, stream_options={"include_usage": True}))
    *parts, last = chunks
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == (f'"{answer}"' if reason == "stop" else REFUSAL)
    assert [part.choices[0].finish_reason for part in parts] == [None, reason]
    assert parts[0].choices[0].delta.role == "assistant"
    assert parts[-1].choices[0].guard["of"] == of and parts[-1].choices[0].guard["flagged"] == (reason != "stop")
    assert last.choices == [] and last.usage.prompt_tokens > 0
    assert all(part.usage is None for part in parts)
    if reason != "stop":
        refusals = [part.choices[0].delta.refusal for part in parts]
        assert refusals == [REFUSAL, None]
        assert "anthrax" not in "".join(chunk.model_dump_json() for chunk in chunks)


def test_every_prompt_of_a_completion_is_judged_on_its_own(guarded):
    answer = guarded.client.completions.create(
        model="flagship", prompt=[HARMLESS, HARMFUL, HARMLESS], max_tokens=3, seed=1, n=2
    )
    assert [choice.index for choice in answer.choices] == list(range(6))
    judged = [choice.guard for choice in answer.choices]
    assert [guard["of"] == "prompt" and guard["flagged"] for guard in judged] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    for choice in answer.choices[2:4]:
        assert choice.finish_reason == "content_filter" and choice.text == ""
    streamed = guarded.client.completions.create(model="flagship", prompt=HARMFUL, max_tokens=3, stream=True)
    (chunk,) = list(streamed)
    assert chunk.choices[0].finish_reason == "content_filter" and chunk.choices[0].guard["flagged"]
    tokens = guarded.text.tokenizer.encode(HARMFUL)
    answer = guarded.client.completions.create(model="flagship", prompt=tokens, max_tokens=3)
    assert answer.choices[0].finish_reason == "content_filter"


def test_what_a_client_puts_into_other_roles_is_judged_too(guarded):
    answer = guarded.client.chat.completions.create(
        model="flagship",
        **saying("I like music"),
        messages=[{"role": "system", "content": HARMFUL}, {"role": "user", "content": HARMLESS}],
    )
    assert answer.choices[0].finish_reason == "content_filter"


def test_many_at_once_each_get_their_own_verdict(guarded):
    async def ask_all():
        client = guarded.async_client
        return await asyncio.gather(
            *(
                client.chat.completions.create(
                    model="flagship", messages=[{"role": "user", "content": prompt}], **saying("I like music")
                )
                for prompt in [HARMLESS, HARMFUL] * 12
            )
        )

    answers = asyncio.run(ask_all())
    assert [answer.choices[0].finish_reason for answer in answers] == ["stop", "content_filter"] * 12


def test_a_server_without_a_guard_marks_nothing(server):
    body = {"model": "flagship", "messages": [{"role": "user", "content": HARMFUL}], "max_tokens": 2}
    told = httpx.post(f"{server.url}/chat/completions", json=body, timeout=60).json()
    assert "guard" not in told["choices"][0] and told["choices"][0]["finish_reason"] == "length"


def test_without_a_verdict_nothing_passes(folder, guard_folder):
    engine = Engine.load(guard_folder, device="cpu", dtype="float32")
    with running(folder, moderator=moderator_of(guard_folder, engine)) as server:
        assert ask(server, HARMLESS).choices[0].finish_reason == "stop"
        logits = engine.model.logits
        engine.model.logits = lambda hidden: torch.zeros_like(logits(hidden))  # the guard has lost its mind
        engine.forget_prefixes()
        with pytest.raises(openai.InternalServerError, match="neither 'safe' nor 'unsafe'"):
            ask(server, HARMLESS)
        with pytest.raises(openai.InternalServerError, match="neither 'safe' nor 'unsafe'"):
            list(ask(server, HARMLESS, stream=True))


def test_a_model_that_is_no_guard_stops_the_start(folder, tmp_path):
    async def start():
        moderator = moderator_of(folder)
        try:
            await moderator.start()
        finally:
            await moderator.stop()

    with pytest.raises(InputError, match="is not a guard|no room for a turn"):
        asyncio.run(start())
