"""Requests as real clients send them: hints have no effect, and a server's own answers are always taken back."""

import json
import logging

import httpx
import openai
import pytest

from herdlm.generate import Engine
from herdlm.serve.api import body as bodies
from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.models import Models
from tests.serve.conftest import WorkerThread, running, write_model

USER = {"role": "user", "content": "Hello"}
CHAT = {"model": "flagship", "messages": [USER], "max_tokens": 6, "seed": 3}
TEXT = {"model": "flagship", "prompt": "Hello", "max_tokens": 6, "seed": 3}
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 5}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": CITY}},
    {"type": "function", "function": {"name": "clock"}},
]


@pytest.fixture
def server(roomy):
    return roomy


@pytest.fixture
def client(server):
    return server.client


@pytest.fixture
def post(server):
    def send(path, body, **headers):
        return httpx.post(f"{server.url}/{path}", json=body, headers=headers, timeout=60)

    return send


HINTS = {
    "user": "u1",
    "store": True,
    "metadata": {},
    "service_tier": "flex",
    "reasoning_effort": "low",
    "verbosity": "high",
    "safety_identifier": "x",
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "prediction": {"type": "content", "content": "x"},
    "cache_salt": "s",
    "request_id": "r",
    "priority": 3,
    "some_vendors_field": [1, 2],
}


@pytest.mark.parametrize("field", HINTS)
def test_hints_leave_the_answer_as_it_is(post, field):
    for path, body in (("chat/completions", CHAT), ("completions", TEXT)):
        plain, hinted = post(path, body), post(path, {**body, field: HINTS[field]})
        assert hinted.status_code == 200, hinted.text
        assert hinted.json()["choices"] == plain.json()["choices"]


def test_an_unknown_field_is_logged_once(post, caplog):
    bodies._told.discard("a_field_of_tomorrow")
    with caplog.at_level(logging.WARNING, logger=bodies.__name__):
        for _ in range(3):
            assert post("chat/completions", {**CHAT, "a_field_of_tomorrow": 1}).status_code == 200
    assert caplog.text.count("a_field_of_tomorrow") == 1


def test_fields_of_messages_that_leave_the_prompt_as_it_is(post):
    part = {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}
    named = {"role": "user", "name": "bob", "content": [part], "weight": 1}
    assert (
        post("chat/completions", {**CHAT, "messages": [named]}).json()["choices"]
        == (post("chat/completions", CHAT).json()["choices"])
    )


CALLED = ['{"city": "Oslo"}', "{}", "", '{\n    "city": "Par', "[1]", "null", '"x"', "9" * 5000]


@pytest.mark.parametrize("arguments", CALLED)
def test_calls_are_taken_back_as_they_were_written(post, arguments):
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments[:200]}}
    said = {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []}
    result = {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "rain"}
    answer = post("chat/completions", {**CHAT, "messages": [USER, said, result], "tools": TOOLS})
    assert answer.status_code == 200, answer.text


def test_a_truncated_call_of_this_server_is_taken_back(client):
    first = client.chat.completions.create(**CHAT, tools=TOOLS, tool_choice="required")
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "length"
    results = [{"role": "tool", "tool_call_id": call.id, "content": "?"} for call in message.tool_calls or []]
    back = [USER, message.model_dump(), *results]
    assert client.chat.completions.create(**{**CHAT, "messages": back}, tools=TOOLS).choices


def test_an_answer_goes_on_after_tokens_that_end_it(tmp_path, tokenizer):
    folder = write_model(tmp_path / "m", tokenizer)
    end = ModelText.read(folder).stop_tokens[0]
    with running(folder) as server:
        always = {"model": "m", "prompt": "a", "max_tokens": 8, "logit_bias": {str(end): 100}, "temperature": 0}
        ended = httpx.post(f"{server.url}/completions", json=always, timeout=60).json()
        on = httpx.post(f"{server.url}/completions", json={**always, "ignore_eos": True}, timeout=60).json()
    assert (ended["usage"]["completion_tokens"], ended["choices"][0]["finish_reason"]) == (1, "stop")
    assert (on["usage"]["completion_tokens"], on["choices"][0]["finish_reason"]) == (8, "length")


def test_further_tokens_may_end_an_answer(post):
    body = {**TEXT, "temperature": 0, "max_tokens": 9, "logit_bias": {"9": 100}}
    ended, on = (post("completions", {**body, **more}).json() for more in ({"stop_token_ids": [9]}, {}))
    assert (ended["choices"][0]["finish_reason"], ended["usage"]["completion_tokens"]) == ("stop", 1)
    assert (on["choices"][0]["finish_reason"], on["usage"]["completion_tokens"]) == ("length", 9)


def test_all_tokens_and_no_limit_as_other_servers_write_them(post):
    assert post("completions", {**TEXT, "top_k": -1}).json()["choices"] == post("completions", TEXT).json()["choices"]
    unlimited = post("chat/completions", {**CHAT, "max_tokens": -1, "stop": ["e"]})
    assert unlimited.status_code == 200


def chunks_of(answer):
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_token_counts_in_every_chunk(post):
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = chunks_of(post("chat/completions", {**CHAT, "stream": True, "stream_options": options}))
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts) and counts[-1] == 6 and counts[0] >= 1


def test_options_of_a_stream_have_no_effect_without_one(post):
    assert post("chat/completions", {**CHAT, "stream_options": {"include_usage": True}}).status_code == 200


def test_the_role_comes_with_the_first_token(post):
    first = post("chat/completions", {**CHAT, "stream": True}).text.split("\n\n")
    roles = [line for line in first if '"role"' in line]
    assert len(roles) == 1 and roles[0] == first[0]
    # Chunks of one event leave together: the second is there with the first.
    assert '"content"' in first[1]


def test_pings_while_a_stream_waits(monkeypatch, server):
    from herdlm.serve.api import stream

    monkeypatch.setattr(stream, "PING_SECONDS", 0.001)
    body = {**CHAT, "stream": True, "max_tokens": 60}
    text = httpx.post(f"{server.url}/chat/completions", json=body, timeout=60).text
    plain = [line for line in text.split("\n\n") if line and not line.startswith(":")]
    assert ": ping\n\n" in text and plain[-1] == "data: [DONE]"


def test_an_answer_of_a_schema_or_a_call(client):
    schema = {"type": "json_schema", "json_schema": {"name": "c", "schema": CITY}}
    kinds = set()
    for seed in range(12):
        found = client.chat.completions.create(
            **{**CHAT, "max_tokens": 150, "seed": seed}, tools=TOOLS, response_format=schema
        ).choices[0]
        if found.message.tool_calls:
            kinds.add("call")
            assert {call.function.name for call in found.message.tool_calls} <= {"weather", "clock"}
        elif found.finish_reason == "stop":
            kinds.add("answer")
            assert set(json.loads(found.message.content)) == {"city"}
    assert kinds


def test_required_tools_may_be_called_several_times(client):
    most = 0
    for seed in range(8):
        choice = client.chat.completions.create(
            **{**CHAT, "max_tokens": 200, "seed": seed}, tools=TOOLS[1:], tool_choice="required"
        ).choices[0]
        most = max(most, len(choice.message.tool_calls))
        assert {call.function.arguments for call in choice.message.tool_calls[:-1]} <= {"{}"}
        body = {**CHAT, "max_tokens": 200, "seed": seed, "parallel_tool_calls": False}
        alone = client.chat.completions.create(**body, tools=TOOLS[1:], tool_choice="required").choices[0]
        assert len(alone.message.tool_calls) == 1
    assert most > 1


def test_allowed_tools_are_the_only_ones_called(client):
    choice = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "clock"}}]},
    }
    for seed in range(4):
        body = {**CHAT, "max_tokens": 60, "seed": seed}
        made = client.chat.completions.create(**body, tools=TOOLS, tool_choice=choice)
        assert {call.function.name for call in made.choices[0].message.tool_calls} == {"clock"}


def test_objects_are_closed_and_numbers_end(client):
    properties = {"n": {"type": "number"}, "i": {"type": "integer"}}
    schema = {"type": "object", "properties": properties, "required": ["n", "i"]}
    given = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    for seed in range(6):
        body = {**CHAT, "max_tokens": 200, "seed": seed}
        made = client.chat.completions.create(**body, response_format=given).choices[0]
        assert made.finish_reason == "stop"
        assert set(json.loads(made.message.content)) == {"n", "i"}


def test_an_unstreamed_answer_is_charged_and_returned_at_the_time_limit(tmp_path, tokenizer):
    from herdlm.serve.access.limits import ServerLimits

    folder = write_model(tmp_path / "m", tokenizer)
    engine = Engine.load(folder)
    slow = engine.step
    engine.step = lambda: (__import__("time").sleep(0.05), slow())[1]
    models = Models([ModelText.read(folder)], launch=lambda connection: WorkerThread(engine, connection))
    with running(folder, models=models, engine=engine, limits=ServerLimits(request_seconds=2)) as server:
        body = {"model": "m", "messages": [USER], "max_tokens": 200}
        found = httpx.post(f"{server.url}/chat/completions", json=body, timeout=60).json()
        assert found["choices"][0]["finish_reason"] == "length" and found["choices"][0]["message"]["content"]
        assert 0 < found["usage"]["completion_tokens"] < 200
        counted = httpx.get(f"{server.url.removesuffix('/v1')}/metrics", timeout=60).text
        line = next(line for line in counted.splitlines() if line.startswith("herdlm_generated_tokens_total"))
        assert float(line.split()[-1]) == found["usage"]["completion_tokens"]


def test_the_models_own_sampling_is_the_default(tmp_path, tokenizer):
    folder = write_model(tmp_path / "m", tokenizer)
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | {"temperature": 0.0}))
    body = {"model": "m", "prompt": "Hello", "max_tokens": 8}
    with running(folder) as server:

        def text(**more):
            answer = httpx.post(f"{server.url}/completions", json=body | more, timeout=60)
            return answer.json()["choices"][0]["text"]

        greedy = {text(), text(seed=9), text(temperature=0)}
        drawn = {text(temperature=2, seed=seed) for seed in range(4)}
    assert len(greedy) == 1
    assert len(drawn) > 1


def test_a_model_with_impossible_sampling_is_refused(tmp_path, tokenizer):
    from herdlm.base.errors import InputError

    folder = write_model(tmp_path / "m", tokenizer)
    (folder / "generation_config.json").write_text('{"top_p": "high"}')
    with pytest.raises(InputError, match=r"generation_config.json: top_p = 'high' is not a number"):
        ModelText.read(folder)


def test_other_methods_and_headers(server):
    root = server.url.removesuffix("/v1")
    for path in ("/health", "/v1/models", "/v1/models/flagship", "/tokenizer_info"):
        head = httpx.head(root + path, timeout=20)
        assert (head.status_code, head.content) == (200, b"")
    mine, other = (
        httpx.get(f"{root}/v1/models", headers={"x-request-id": id}, timeout=20).headers["x-request-id"]
        for id in ("mine-1", 'a b"c')
    )
    assert mine == "mine-1" and other.startswith("req-")


def test_pages_of_named_origins_may_ask(tmp_path, tokenizer):
    folder = write_model(tmp_path / "m", tokenizer)
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    with running(folder, cors_origins=["https://mine.example"]) as server:
        allowed, other = (
            httpx.options(f"{server.url}/chat/completions", headers={"origin": origin} | asks, timeout=20)
            for origin in ("https://mine.example", "https://other.example")
        )
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://mine.example")
    assert "access-control-allow-origin" not in other.headers


def test_without_a_model_no_tokenizer_is_guessed(tmp_path, tokenizer):
    one, two, same = (write_model(tmp_path / name, tokenizer) for name in ("one", "two", "same"))
    text = (two / "tokenizer.json").read_text()
    changed = json.loads(text)
    changed["added_tokens"][-1]["content"] = "<|other|>"
    (two / "tokenizer.json").write_text(json.dumps(changed))
    launch = {"launch": lambda connection: WorkerThread(Engine.load(one), connection)}
    with running(one, models=Models([ModelText.read(one), ModelText.read(two)], **launch)) as server:
        root = server.url.removesuffix("/v1")
        refused = httpx.post(f"{root}/tokenize", json={"prompt": "a"}, timeout=20)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
        assert httpx.get(f"{root}/tokenizer_info", timeout=20).status_code == 400
        assert httpx.get(f"{root}/tokenizer_info?model=two", timeout=20).status_code == 200
        assert httpx.post(f"{root}/tokenize", json={"prompt": "a", "model": "two"}, timeout=20).status_code == 200
    with running(one, models=Models([ModelText.read(one), ModelText.read(same)], **launch)) as server:
        root = server.url.removesuffix("/v1")
        assert httpx.post(f"{root}/tokenize", json={"prompt": "a"}, timeout=20).status_code == 200


def test_the_client_library_sends_hints(client):
    found = client.chat.completions.create(
        **CHAT, user="u", store=True, metadata={"a": "b"}, service_tier="auto", reasoning_effort="low"
    )
    assert found.choices
    with pytest.raises(openai.BadRequestError, match="guided_json"):
        client.chat.completions.create(**CHAT, extra_body={"guided_json": {"type": "object"}})
