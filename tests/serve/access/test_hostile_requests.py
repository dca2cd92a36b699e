"""Hostile requests: refused at once, with /health answering all the while; and nobody of another name gets in."""

import json
import socket
import threading
import time

import httpx
import pytest

from herdlm.serve.access.headers import is_loopback
from herdlm.serve.access.keys import KeyFile
from herdlm.serve.access.limits import ServerLimits
from tests.serve.conftest import running

BIG = 4_000_000


@pytest.fixture(scope="module")
def server(folder):
    with running(folder, loopback_only=True, limits=ServerLimits(connections=60, head_seconds=0.6)) as found:
        yield found


def at(server, path):
    return server.url.removesuffix("v1") + path.lstrip("/")


def post(server, path, content, **headers):
    headers = {"content-type": "application/json"} | headers
    return httpx.post(at(server, path), content=content, headers=headers, timeout=60)


def chat(**more):
    return json.dumps({"model": "flagship", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2} | more)


PARTS = '{"model": "flagship", "messages": [{"role": "user", "content": [%s]}]}'
HOSTILE = {
    "parts": ("/v1/chat/completions", PARTS % ",".join(['{"type":"text","text":""}'] * (BIG // 26))),
    "wrong parts": ("/v1/chat/completions", PARTS % ",".join(["1"] * (BIG // 2))),
    "fewer wrong parts": ("/v1/chat/completions", PARTS % ",".join(["1"] * 90_000)),
    "messages": (
        "/v1/chat/completions",
        '{"model": "flagship", "messages": [' + ",".join(['{"role":"user","content":""}'] * 60_000) + "]}",
    ),
    "nested": ("/v1/chat/completions", "[" * BIG),
    "nested objects": ("/v1/chat/completions", '{"a":' * 150_000),
    "digits": ("/v1/chat/completions", chat().replace("2", "9" * 100_000)),
    "a long text": ("/v1/chat/completions", chat(messages=[{"role": "user", "content": "ab " * (BIG // 3)}])),
    "a text of look-alikes": ("/v1/chat/completions", chat(messages=[{"role": "user", "content": "<|" * (BIG // 2)}])),
    "tokenize": ("/tokenize", json.dumps({"prompt": "a" * BIG})),
    "token lists": ("/v1/completions", '{"model": "flagship", "prompt": [' + ",".join(["[1]"] * 50_000) + "]}"),
    "detokenize": ("/detokenize", '{"tokens": [' + ",".join(["1"] * 150_000) + "]}"),
    "biases": ("/v1/chat/completions", chat(logit_bias={str(n): 0 for n in range(50_000)})),
    "stops": ("/v1/chat/completions", chat(stop=["a"] * 60_000)),
    "tools": ("/v1/chat/completions", chat(tools=[{"type": "function", "function": {"name": "f"}}] * 20_000)),
    "embeddings": ("/v1/embeddings", json.dumps({"model": "flagship", "input": ["a"] * 60_000})),
    "a large schema": (
        "/v1/chat/completions",
        chat(
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"enum": [f"x{n}" for n in range(60_000)]}},
            }
        ),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_refused(server, name):
    path, content = HOSTILE[name]
    answer = post(server, path, content)
    assert answer.status_code in (400, 413), answer.text[:300]
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert len(answer.content) < 2000


def test_text_just_within_the_bound_is_counted_exactly(server):
    answer = post(server, "/v1/completions", json.dumps({"model": "flagship", "prompt": "a b " * 200}))
    assert (answer.status_code == 400 and "fills the context" in answer.text) or "are" in answer.text
    answer = post(server, "/tokenize", json.dumps({"prompt": "hello"}))
    assert answer.status_code == 200 and answer.json()["count"] > 0


def test_a_pattern_that_takes_long_delays_nobody(server):
    pattern = "(?:.*a.{0,200}){12}"
    schema = {"type": "object", "properties": {"x": {"type": "string", "pattern": pattern}}, "required": ["x"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    ended = []
    thread = threading.Thread(
        target=lambda: ended.append(post(server, "/v1/chat/completions", chat(response_format=form)))
    )
    thread.start()
    others = 0
    while thread.is_alive():
        assert httpx.get(at(server, "/health/live"), timeout=30).status_code == 200
        assert post(server, "/v1/chat/completions", chat()).status_code == 200
        others += 1
    assert others > 0 and ended[0].status_code in (200, 400)


def test_a_wrong_schema_is_still_refused_by_its_name(server):
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}}
    answer = post(server, "/v1/chat/completions", chat(response_format=form))
    assert answer.status_code == 400 and "grammar" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/no/such/page", "/metrics"])
def test_every_answer_forbids_guessing_and_framing(server, path):
    headers = httpx.get(at(server, path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert len(headers.get_list("content-security-policy")) == 1


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "0.0.0.0", ""]
)
def test_other_names_than_this_machines_are_refused(server, host):
    for path in ("/v1/models", "/", "/health"):
        answer = httpx.get(at(server, path), headers={"host": host})
        assert answer.status_code == 421 and answer.json()["error"]["code"] == "wrong_host"


def test_loopback_names():
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1", "127.1.2.3:65535", "[::1]", "[::1]:8000"):
        assert is_loopback(host), host
    for host in ("", ":80", "::1", "[::1", "127.0.0.1:x", "127.0.0.1:80:80", "10.0.0.1", "[::2]:1", "localhost.", "a"):
        assert not is_loopback(host), host


def test_a_content_type_of_forms_is_refused(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = post(server, "/v1/chat/completions", chat(), **{"content-type": kind})
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_body"


def talk(server, *pieces, seconds=20.0):
    """What the server says to raw bytes, until it closes the connection."""
    host, port = server.url.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), seconds) as connection:
        for piece in pieces:
            connection.sendall(piece)
        said = b""
        while more := connection.recv(65536):
            said += more
    return said


POST = b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\n"
GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nabcde",
        POST + b"content-length: +5\r\n\r\nabcde",
        GET + b"a b: c\r\n\r\n",
        GET + b"x : y\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/9.9\r\nhost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        GET + b"a: " + b"b" * 100_000 + b"\r\n\r\n",
    ],
)
def test_requests_that_can_be_read_in_two_ways(server, request_):
    said = talk(server, request_.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
    assert said.startswith(b"HTTP/1.1 400 ") and b"nosniff" in said


def test_a_head_that_does_not_come_closes_the_connection(server):
    assert talk(server) == b""
    assert talk(server, GET) == b""


def test_connections_are_bounded(server):
    host, port = server.url.split("/")[2].split(":")
    opened = [socket.create_connection((host, int(port)), 20) for _ in range(90)]
    try:
        deadline = time.monotonic() + 20
        refused = 0
        for connection in opened:
            connection.settimeout(max(deadline - time.monotonic(), 0.1))
            refused += connection.recv(100).startswith(b"HTTP/1.1 503")  # others are closed without a word
        assert 25 <= refused <= 40
    finally:
        for connection in opened:
            connection.close()
    assert httpx.get(at(server, "/health")).status_code == 200


def test_no_body_is_read_before_the_key(folder, tmp_path):
    keys = KeyFile(tmp_path / "keys.json")
    secret = keys.add("a")
    with running(folder, keys=keys) as found:
        for path in ("/v1/chat/completions", "/tokenize", "/no/such/path", "/", "/health", "/page/x"):
            head = f"POST {path} HTTP/1.1\r\nhost: any.name\r\ncontent-length: 1000000\r\nconnection: close\r\n\r\n"
            assert talk(found, head.encode()).startswith(b"HTTP/1.1 401 "), path
        for path, status in (("/", 200), ("/health", 200), ("/v1/models", 401), ("/openapi.json", 401)):
            assert httpx.get(at(found, path)).status_code == status
        bearer = {"authorization": f"Bearer {secret}"}
        assert httpx.get(at(found, "/v1/models"), headers=bearer).status_code == 200
