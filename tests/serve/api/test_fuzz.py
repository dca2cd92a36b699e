"""Requests drawn from the server's own OpenAPI document, and from outside it: no 5xx, no hang, no growth of memory."""

import copy
import json
import os
import random
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.models import Models
from tests.serve.conftest import running
from tests.serve.schemas import JSON, values

ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize")
QUIET = dict(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


@pytest.fixture(scope="module")
def document(server):
    return httpx.get(server.url.removesuffix("v1") + "openapi.json").json()


def bodies(document, route):
    schema = document["paths"][route]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return values(schema, document["components"]["schemas"])


def short(body):
    """The body made to be answered soon, by the model that is there."""
    if not isinstance(body, dict):
        return body
    body = {k: v for k, v in copy.deepcopy(body).items() if k not in ("best_of", "min_tokens")}
    body |= {"model": "flagship"} if "model" in body else {}
    for field, most in (("n", 2), ("max_tokens", 4), ("max_completion_tokens", 4)):
        if isinstance(body.get(field), int):
            body[field] = min(body[field], most)
    if "messages" in body and body.get("max_tokens") is None and body.get("max_completion_tokens") is None:
        body["max_tokens"] = 4
    return body


def together(body):
    """The body with what the document cannot say put right: which parts of messages go together."""
    for message in body.get("messages", []):
        if message["role"] == "tool":
            message["role"] = "user"
        message.pop("tool_call_id", None)
        if message["role"] != "assistant":
            message.pop("tool_calls", None)
        if message.get("content") is None and not message.get("tool_calls"):
            message["content"] = "Hi"
    return body


def mutated(body, number):
    """The body with one of its values, at any depth, replaced or taken out."""
    rng, body = random.Random(number), copy.deepcopy(body)
    place = body
    while isinstance(place, dict | list) and place:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.4:
            if rng.random() < 0.2:
                del place[key]
            else:
                place[key] = rng.choice([None, -1, 0, 1e308, 2**63, "", "\ud800", "x" * 500, [], {}, True, [[]], 3.5])
            return body
        place = place[key]
    return body


def check(client, route, body):
    content = json.dumps(body).encode()
    answer = client.post(route, content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 404, 413), (answer.status_code, answer.text, body)
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error["message"] and error["type"] == "invalid_request_error", body
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert answer.text.endswith("data: [DONE]\n\n") and '"error"' not in answer.text, (body, answer.text)
    else:
        answer.json()
    return answer.status_code


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url.removesuffix("/v1"), timeout=20) as client:
        yield client


@pytest.mark.parametrize("route", ROUTES)
def test_bodies_by_the_document_and_beside_it_are_answered_or_refused(http, document, route):
    seen = []
    schema = bodies(document, route)

    @settings(max_examples=25, **QUIET)
    @given(schema.map(short).map(together), st.integers(0, 2**32))
    def run(body, number):
        seen.append(check(http, route, body))
        seen.append(check(http, route, short(mutated(body, number))))

    run()
    assert 400 in seen, "no mutation was refused"
    assert 200 in seen, "nothing was answered"


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=8, **QUIET)
@given(body=JSON)
def test_any_json_is_refused_in_the_apis_form(http, route, body):
    assert check(http, route, body) != 200 or isinstance(body, dict)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"1e999", b'{"model": "\\ud800"}', b"nul\x00l"],
)
@pytest.mark.parametrize("route", ROUTES)
def test_what_is_no_json_is_refused(http, route, content):
    answer = http.post(route, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["message"]


def memory(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_requests(folder, document):
    models = Models([ModelText.read(folder)])
    with (
        running(None, models=models) as server,
        httpx.Client(base_url=server.url.removesuffix("/v1"), timeout=60) as http,
    ):
        schemas = [(route, bodies(document, route)) for route in ROUTES]
        pool = []

        @settings(max_examples=120, **QUIET)
        @given(
            st.sampled_from(schemas).flatmap(lambda each: st.tuples(st.just(each[0]), each[1].map(short).map(together)))
        )
        def collect(case):
            pool.append(case)

        collect()
        worker = models.default.backend.pid

        def batch():
            for i, (route, body) in enumerate(pool * 2):
                check(http, route, body)
                check(http, route, short(mutated(body, i)))
            return memory(os.getpid()), memory(worker)

        batch()  # what is cached once is no growth
        before = batch()
        for _ in range(3):
            after = batch()
        print(f"memory of server and worker: {before} -> {after} after {3 * 4 * len(pool)} requests")
        assert models.default.backend.restarts == 0
        for begin, end in zip(before, after, strict=True):
            assert end < begin * 1.05 + 8 * 2**20
