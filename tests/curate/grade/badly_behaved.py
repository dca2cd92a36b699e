"""A server that answers chats as a test tells it to, well or badly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What goes back: a status, a body (bytes as they are), headers, and how long it takes."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    trickle: float = 0.0  # seconds between the bytes of the body
    cut: bool = False  # promise more bytes than are sent


def says(text: str | None) -> Reply:
    """A chat completion of this text."""
    return Reply({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]})


@dataclass
class Request:
    """What came: the parsed body, the headers, when, and how many requests there were before."""

    body: dict[str, Any]
    headers: dict[str, str]
    number: int
    path: str

    @property
    def question(self) -> str:
        return self.body["messages"][-1]["content"]


@dataclass
class Running:
    """The server's address and what it was asked."""

    address: str
    requests: list[Request]
    most_at_once: int = 0


@contextmanager
def server(answer: Callable[[Request], Reply]) -> Iterator[Running]:
    """Run a server on a free port that replies with ``answer``."""
    lock = threading.Lock()
    under_way = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def do_GET(self) -> None:
            self._answer({})

        def _answer(self, body: dict[str, Any]) -> None:
            nonlocal under_way
            with lock:
                under_way += 1
                running.most_at_once = max(running.most_at_once, under_way)
                request = Request(body, dict(self.headers), len(running.requests), self.path)
                running.requests.append(request)
            reply = answer(request)
            time.sleep(reply.delay)
            with lock:
                under_way -= 1
            with suppress(BrokenPipeError, ConnectionResetError):  # the client may not have waited
                self._send(reply)

        def _send(self, reply: Reply) -> None:
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) + (10 if reply.cut else 0)))
            self.send_header("Connection", "close")
            self.end_headers()
            for piece in [body] if not reply.trickle else [body[i : i + 1] for i in range(len(body))]:
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(reply.trickle)
            self.close_connection = True

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    running = Running(f"http://127.0.0.1:{httpd.server_port}/v1", [])
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield running
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
