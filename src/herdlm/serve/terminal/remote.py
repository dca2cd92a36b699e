"""A client of a server that speaks OpenAI's protocol, on the standard library alone."""

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
SILENT_SECONDS = 600  # that a server may take for its next piece of an answer
AGAIN = "/regenerate or asking again may help"
MAX_LINE = 1 << 20  # bytes of one line of a stream


class ServerError(HerdError):
    """A server did not answer a request, or not to its end."""


class RemoteModels(ChatClient):
    """The models of a server.

    Args:
        url: the base URL, as in ``http://127.0.0.1:8000/v1``; ``/v1`` may be left out.
        key: sent as bearer token.
        name: the model to talk to; the first that the server lists where it is None.

    Raises:
        InputError: the URL is none, or the server has no model of that name.
        ServerError: the server cannot be reached or refuses.
    """

    def __init__(self, url: str, *, key: str | None = None, name: str | None = None) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme not in ("http", "https") or not host:
            raise InputError(f"{url} is no address of a server", "Give one such as http://127.0.0.1:8000/v1")
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise InputError("the API key holds characters that no key has", "Give it as it was made")
        self._secure, self._host, self._port = parts.scheme == "https", host, port
        self._path, self._key = parts.path.rstrip("/") or "/v1", key
        self._name = self._known(name)

    @property
    def name(self) -> str:
        """The chosen one."""
        return self._name

    def names(self) -> list[str]:
        """The models that the server lists now."""
        with self._sent("GET", "/models") as response:
            body = _json(response.read())
        models = body.get("data") if isinstance(body, dict) else None
        if not isinstance(models, list):
            raise ServerError(f"{self._host} lists no models", "Is it a server of OpenAI's protocol?")
        return [str(model["id"]) for model in models if isinstance(model, dict) and "id" in model]

    def choose(self, name: str) -> None:
        """Talk to the server's model of that name."""
        self._name = self._known(name)

    def _known(self, name: str | None) -> str:
        names = self.names()
        if not names:
            raise ServerError(f"{self._host} has no model", "Load one there")
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
        """Answer over the connection; stopping closes it, and the server drops the request."""
        body = {
            "model": self.name,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **_parameters(params),
        }
        text, reason, tokens, complete = "", None, None, False
        try:
            with self._sent("POST", "/chat/completions", body, cancellation) as response:
                for piece in _pieces(response):
                    text += piece.text
                    write(piece.text)
                    reason, tokens = piece.reason or reason, piece.tokens or tokens
                    complete = complete or piece.last
        except ServerError:
            if not cancellation.cancelled:
                raise
        if cancellation.cancelled and not complete:
            return ChatResult(text, None, tokens)
        if not complete:
            raise ServerError(f"{self._host} closed the connection before the answer was complete", AGAIN)
        return ChatResult(text, reason or "stop", tokens)

    @contextmanager
    def _sent(
        self, method: str, path: str, body: dict[str, Any] | None = None, cancellation: Cancellation | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_SECONDS)
        headers = {"content-type": "application/json"} if body else {}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            try:
                connection.connect()
                connected: socket.socket = connection.sock
                connected.settimeout(SILENT_SECONDS)
                if cancellation:
                    cancellation.on_cancel(lambda: _hang_up(connected))
                connection.request(method, f"{self._path}{path}", json.dumps(body) if body else None, headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise ServerError(
                    f"{self._host}:{connection.port} cannot be reached ({error or type(error).__name__})",
                    "Is the server running there?",
                ) from error
            if response.status >= 400:
                raise _refused(response, connection.port, self._host)
            yield response
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str = ""
    reason: str | None = None
    tokens: int | None = None
    last: bool = False


def _pieces(response: http.client.HTTPResponse) -> Iterator[_Piece]:
    """What the chunks of a stream tell; the last is marked."""
    try:
        for data in _events(response):
            if data == "[DONE]":
                yield _Piece(last=True)
                return
            yield _piece(_json(data.encode()))
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"the server broke off the answer ({error or type(error).__name__})", AGAIN) from error


def _piece(chunk: Any) -> _Piece:
    if isinstance(chunk, dict) and chunk.get("error"):
        raise ServerError((_error_message(chunk) or "the server failed").rstrip("."), AGAIN)
    try:
        choice = (chunk["choices"] or [{}])[0]
        text = (choice.get("delta") or {}).get("content") or ""
        return _Piece(text, choice.get("finish_reason"), (chunk.get("usage") or {}).get("completion_tokens"))
    except (AttributeError, KeyError, TypeError) as error:
        raise ServerError("a piece of the answer is none of OpenAI's protocol", "Is it a server of it?") from error


def _hang_up(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _parameters(params: SamplingParams) -> dict[str, Any]:
    """Parameters of a request. Those beyond OpenAI's API are left out where they ask for nothing."""
    found: dict[str, Any] = {
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
    found |= {name: value for name, neutral in beyond.items() if (value := getattr(params, name)) != neutral}
    if params.stop:
        found["stop"] = list(params.stop)
    return found


def _events(response: http.client.HTTPResponse) -> Iterator[str]:
    """The data of server-sent events."""
    data: list[str] = []
    while line := response.readline(MAX_LINE):
        text = line.decode(errors="replace").rstrip("\r\n")
        if text.startswith("data:"):
            data.append(text[5:].removeprefix(" "))
        elif not text and data:
            yield "\n".join(data)
            data.clear()


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ServerError("the server's answer is no JSON", "Is it a server of OpenAI's protocol?") from error


def _refused(response: http.client.HTTPResponse, port: int, host: str) -> ServerError:
    content = response.read(MAX_LINE)
    with suppress(ServerError):
        message = _error_message(_json(content))
        if message:
            remedy = ""
            if response.status == 401:
                remedy = "Give a key with --key or in HERDLM_API_KEY"
            elif response.status == 429 and (wait := response.headers.get("retry-after")):
                remedy = f"Try again in {wait} s"
            return ServerError(message.rstrip("."), remedy)
    return ServerError(f"{host}:{port} answered with status {response.status}", "Is it a server of OpenAI's protocol?")


def _error_message(body: Any) -> str | None:
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else None
