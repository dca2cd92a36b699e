"""A chat client for servers of the OpenAI API, on the standard library."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from herdlm.base.errors import HerdError, InputError
from herdlm.generate.request import SamplingParams
from herdlm.serve.terminal.client import Cancellation, ChatClient, ChatResult
from herdlm.tokens.chat import Message

CONNECT_SECONDS = 10
READ_SECONDS = 600  # longest pause between two pieces of an answer
MAX_BODY = 1 << 24  # bytes of an answer that is not a stream
MAX_LINE = 1 << 20  # bytes of one line of a stream
RETRY = "Use /regenerate or ask again"
NOT_OPENAI = "Check that it is a server of the OpenAI API"


class ServerError(HerdError):
    """A server did not answer a request, or not completely."""


class RemoteModels(ChatClient):
    """The models of a server.

    Args:
        url: the base URL, such as ``http://127.0.0.1:8000/v1``; ``/v1`` may be omitted.
        key: sent as bearer token.
        name: the model to chat with; by default the first one of the server's list.

    Raises:
        InputError: the URL is invalid, or the server has no model of that name.
        ServerError: the server cannot be reached or refuses.
    """

    def __init__(self, url: str, *, key: str | None = None, name: str | None = None) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme not in ("http", "https") or not host:
            raise InputError(f"{url} is not the address of a server", "Give one such as http://127.0.0.1:8000/v1")
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise InputError("the API key holds characters that no key has", "Copy the whole key and nothing else")
        self._secure, self._host, self._port = parts.scheme == "https", host, port
        self._path, self._key = parts.path.rstrip("/") or "/v1", key
        self._name = self._find(name)

    @property
    def name(self) -> str:
        """The current model's name."""
        return self._name

    def names(self) -> list[str]:
        """The models that the server lists now."""
        with self._send("GET", "/models") as response:
            body = _parse(_read(response))
        models = body.get("data") if isinstance(body, dict) else None
        if not isinstance(models, list):
            raise ServerError(f"{self._host} lists no models", NOT_OPENAI)
        return [str(model["id"]) for model in models if isinstance(model, dict) and "id" in model]

    def choose(self, name: str) -> None:
        """Switch to the server's model of that name."""
        self._name = self._find(name)

    def _find(self, name: str | None) -> str:
        names = self.names()
        if not names:
            raise ServerError(f"{self._host} has no model", "Load a model on the server")
        if name is not None and name not in names:
            raise InputError(f"{self._host} has no model {name!r}", f"It has {', '.join(names)}")
        return name or names[0]

    def answer(
        self,
        messages: Sequence[Message],
        params: SamplingParams,
        write: Callable[[str], None],
        cancellation: Cancellation,
    ) -> ChatResult:
        """Stream an answer. Cancellation closes the connection, upon which the server drops the request."""
        body = {
            "model": self.name,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **_parameters(params),
        }
        text, reason, tokens, complete = "", None, None, False
        try:
            with self._send("POST", "/chat/completions", body, cancellation) as response:
                for chunk in _chunks(response):
                    text += chunk.text
                    write(chunk.text)
                    reason, tokens = chunk.reason or reason, chunk.tokens or tokens
                    complete = complete or chunk.last
        except ServerError:
            if not cancellation.cancelled:
                raise
        if cancellation.cancelled and not complete:
            return ChatResult(text, None, tokens)
        if not complete:
            raise ServerError(f"{self._host} closed the connection before the answer was complete", RETRY)
        return ChatResult(text, reason or "stop", tokens)

    @contextmanager
    def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, cancellation: Cancellation | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request on a connection of its own; the caller reads the response."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_SECONDS)
        headers = {"content-type": "application/json"} if body else {}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            try:
                connection.connect()
                connected: socket.socket = connection.sock
                connected.settimeout(READ_SECONDS)
                if cancellation:
                    cancellation.on_cancel(lambda: _shut_down(connected))
                connection.request(method, f"{self._path}{path}", json.dumps(body) if body else None, headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise ServerError(
                    f"{self._host}:{connection.port} cannot be reached ({error or type(error).__name__})",
                    "Check that the server is running there",
                ) from error
            if response.status >= 400:
                raise _refusal(response, f"{self._host}:{connection.port}")
            yield response
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class _Chunk:
    text: str = ""
    reason: str | None = None
    tokens: int | None = None
    last: bool = False


def _chunks(response: http.client.HTTPResponse) -> Iterator[_Chunk]:
    """The chunks of a stream; the last one is marked."""
    try:
        for data in _events(response):
            if data == "[DONE]":
                yield _Chunk(last=True)
                return
            yield _chunk(_parse(data))
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"the connection broke during the answer ({error or type(error).__name__})", RETRY) from error


def _chunk(chunk: Any) -> _Chunk:
    if isinstance(chunk, dict) and chunk.get("error"):
        raise ServerError((_error_message(chunk) or "the server failed").rstrip("."), RETRY)
    try:
        choice = (chunk["choices"] or [{}])[0]
        text = (choice.get("delta") or {}).get("content") or ""
        return _Chunk(text, choice.get("finish_reason"), (chunk.get("usage") or {}).get("completion_tokens"))
    except (AttributeError, KeyError, TypeError) as error:
        raise ServerError("a chunk of the answer does not follow the OpenAI API", NOT_OPENAI) from error


def _shut_down(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _parameters(params: SamplingParams) -> dict[str, Any]:
    """Sampling parameters of a request. Leaves out those beyond the OpenAI API that have no effect."""
    parameters: dict[str, Any] = {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "max_completion_tokens": params.max_tokens,
        "seed": params.seed,
    }
    beyond = {
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "min_tokens": 0,
    }
    parameters |= {name: value for name, neutral in beyond.items() if (value := getattr(params, name)) != neutral}
    if params.stop:
        parameters["stop"] = list(params.stop)
    return parameters


def _events(response: http.client.HTTPResponse) -> Iterator[str]:
    """The data of server-sent events."""
    data: list[str] = []
    while raw := response.readline(MAX_LINE):
        line = raw.decode(errors="replace").rstrip("\r\n")
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data.clear()


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(MAX_BODY)
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"the connection broke ({error or type(error).__name__})", "Try again") from error


def _refusal(response: http.client.HTTPResponse, address: str) -> ServerError:
    with suppress(ServerError):
        if message := _error_message(_parse(_read(response))):
            remedy = ""
            if response.status == 401:
                remedy = "Give a key with --key or in HERDLM_API_KEY"
            elif response.status == 429 and (wait := response.headers.get("retry-after")):
                remedy = f"Retry after {wait} s"
            return ServerError(message.rstrip("."), remedy)
    return ServerError(f"{address} answered with status {response.status}", NOT_OPENAI)


def _parse(content: bytes | str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ServerError("the server's answer is not JSON", NOT_OPENAI) from error


def _error_message(body: Any) -> str | None:
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else None
