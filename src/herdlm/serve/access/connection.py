"""HTTP connections: strict parsing, a bound on their number, and time-outs for clients that send or read too slowly."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from herdlm.serve.access.headers import SAFE_HEADERS

_LINES = "".join(f"{name}: {value}\r\n" for name, value in SAFE_HEADERS.items())


def _refusal(status: str, message: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {len(message)}\r\n"
    return f"{head}{_LINES}connection: close\r\n\r\n{message}".encode()


BUSY = _refusal("503 Service Unavailable", "the server has too many connections")
MALFORMED = _refusal("400 Bad Request", "this is no valid HTTP request")


def connection_class(most: int, head_seconds: float, read_seconds: float) -> type[H11Protocol]:
    """The protocol of connections, for :class:`uvicorn.Config`.

    h11 refuses what servers and proxies may read in different ways, such as two lengths or spaces in a header's name.

    Args:
        most: connections at once; further ones get status 503.
        head_seconds: time for a client to send a request's first lines and headers.
        read_seconds: time for which a client may leave what is sent to it unread.
    """

    class Connection(H11Protocol):
        _head: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def __init__(self, config: Config, *arguments: Any, **options: Any) -> None:
            super().__init__(config, *arguments, **options)

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.write(BUSY)
                transport.close()
                return
            self._await_head()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            self._await_head()

        def send_400_response(self, msg: str) -> None:
            self.transport.write(MALFORMED)
            self.transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self._unread or self.loop.call_later(read_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._unread:
                self._unread.cancel()
                self._unread = None

        def _await_head(self) -> None:
            """Give the client time for a head that it has begun or must begin; none once the head is there."""
            if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
                if self._head:
                    self._head.cancel()
                    self._head = None
            elif self._head is None:
                self._head = self.loop.call_later(head_seconds, self._too_slow)

        def _too_slow(self) -> None:
            self._head = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

        def _cancel(self) -> None:
            for timer in (self._head, self._unread):
                if timer:
                    timer.cancel()
            self._head = self._unread = None

    return Connection
