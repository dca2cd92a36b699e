"""The server process: its address, its logging and its shutdown."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from herdlm.base.errors import InputError

try:
    import uvicorn

    from herdlm.serve.access.connection import connection_class
    from herdlm.serve.api.app import create_app
except ModuleNotFoundError as error:
    raise InputError(f"serving needs the package {error.name}", "pip install 'herdlm[serve]'") from error
from fastapi import FastAPI

from herdlm.serve.access.keys import KeyFile
from herdlm.serve.access.limits import ServerLimits
from herdlm.serve.guard.moderation import Moderator
from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.models import Models

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 60
CLOSE_SECONDS = 2  # for connections to close once no request is in flight

# The access log is one line of JSON per request.
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}, "bare": {"format": "%(message)s"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"},
        "access": {"class": "logging.StreamHandler", "formatter": "bare", "stream": "ext://sys.stderr"},
    },
    "loggers": {
        "uvicorn.error": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "herdlm.serve": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "herdlm.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}


def print_line(line: str) -> None:
    """Write a line to standard error and flush it."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def serve(
    models: Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    dtype: str = "auto",
    cache_tokens: int | None = None,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    memory_gib: float | None = None,
    keys: Path | None = None,
    no_keys: bool = False,
    limits: ServerLimits | None = None,
    log_texts: bool = False,
    guard: Path | None = None,
    guard_threshold: float = 0.5,
    seed: int = 0,
    cors_origins: Sequence[str] = (),
    ready: Callable[[str, str], None] | None = None,
) -> None:
    """Serve models until SIGTERM or Ctrl-C. Loads the first model at once, others on demand.

    Args:
        models: model folders or runs (a run means its flagship), each as ``FOLDER`` or ``NAME=FOLDER``.
        port: 0 for any free port.
        tensor_parallel, pipeline_parallel: processes of this machine that share each model.
        cache_tokens: size of each model's key/value cache; see :class:`herdlm.generate.engine.Engine` for the default.
        memory_gib: memory limit for loaded models and the guard together. The least recently used model is unloaded to
            make room.
        keys: a file of API keys; see :class:`herdlm.serve.access.keys.KeyFile`.
        no_keys: let everyone in, even at an address that other machines can reach, and by any name. Without it, a
            server without keys answers requests to ``localhost`` or a loopback address alone.
        log_texts: write prompts to the access log.
        guard: folder of a guard model that judges prompts and answers; see :mod:`herdlm.serve.guard.moderation`.
        guard_threshold: scores from this one on are refused.
        seed, cors_origins: see :func:`herdlm.serve.api.app.create_app`.
        ready: called with the first model's name and the base URL when the server accepts requests; by default the
            server prints one line.

    Raises:
        InputError: a model or the address is unusable, or other machines can reach the address and there are no keys.
    """
    texts = [_read_model(model) for model in models]  # wrong paths fail before anything is loaded
    moderator = None if guard is None else Moderator(guard, guard_threshold, device=device, dtype=dtype)
    served = Models(
        texts,
        device=device,
        dtype=dtype,
        cache_tokens=cache_tokens,
        memory_gib=memory_gib,
        guard_bytes=None if moderator is None else lambda: moderator.bytes,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
    )
    key_file = None if keys is None else KeyFile(keys)
    if key_file:
        key_file.entries()
    with bind(host, port) as listener:
        loopback = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
        if key_file is None and not no_keys and not loopback:
            raise InputError(
                f"other machines can reach {host}, and there are no API keys",
                "Give --keys FILE (herdlm keys add creates one), or --no-keys to let everyone in",
            )
        with _address_errors(host, port):
            listener.listen(BACKLOG)
        url = base_url(listener)

        def announce() -> None:
            if ready:
                ready(texts[0].name, url)
            else:
                print_line(f"{', '.join(text.name for text in texts)} answers at {url} (Ctrl-C ends)")

        app = create_app(
            served,
            seed=seed,
            limits=limits,
            keys=key_file,
            log_texts=log_texts,
            moderator=moderator,
            loopback_only=loopback and key_file is None and not no_keys,
            cors_origins=cors_origins,
        )
        Server(app, announce).run(sockets=[listener])


def _read_model(model: str | Path) -> ModelText:
    name, equals, folder = str(model).partition("=")
    if equals and not Path(model).exists():
        return ModelText.read(Path(folder), name)
    return ModelText.read(Path(model))


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to an address, not listening yet.

    Raises:
        InputError: the address is in use, belongs to another machine, or is not allowed.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port {port} is not between 0 and 65535", "Choose another with --port")
    with _address_errors(host, port):
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    return listener


def base_url(listener: socket.socket) -> str:
    """The base URL for clients of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


class Server(uvicorn.Server):
    """Loads the first model, announces that it is ready, and drains after a signal.

    While draining, new requests get status 503 with Retry-After, and running ones may finish within the limit. Then the
    server fails the rest. A second signal ends it at once.
    """

    def __init__(self, app: FastAPI, announce: Callable[[], None]) -> None:
        limits: ServerLimits = app.state.limits
        super().__init__(
            uvicorn.Config(
                app,
                http=connection_class(limits.connections, limits.head_seconds, limits.read_seconds),
                log_config=LOGGING,
                access_log=False,
                backlog=BACKLOG,
                ws="none",
                lifespan="on",
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        self._announce = announce
        self._models, self._gate, self._limits = app.state.service.models, app.state.gate, app.state.limits
        self._moderator = app.state.service.moderator
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the first model, start to accept requests and announce it."""
        if self._moderator:  # first: its memory is not available to models
            await self._moderator.start()
        (await self._models.lease(self._models.default.text.name)).close()
        await super().startup(sockets)
        self._announce()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Make SIGTERM and SIGINT drain the server. Uvicorn's own version raises them again after the shutdown."""
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. It may interrupt anything, so the event loop does the rest."""
        self._loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        """Start to drain; if already draining, end at once. Call it in the asyncio thread."""
        if not self.started:
            assert self._main is not None
            self._main.cancel()
        elif self._draining:
            self.should_exit = self.force_exit = True
        else:
            self._gate.draining = True
            self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await asyncio.wait_for(self._gate.idle.wait(), self._limits.drain_seconds)
        except TimeoutError:
            self._models.fail_all("the server is shutting down")
            if self._moderator:
                self._moderator.backend.fail_all("the server is shutting down")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._gate.idle.wait(), CLOSE_SECONDS)
        self.should_exit = True


@contextmanager
def _address_errors(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except socket.gaierror as error:
        raise InputError(f"host {host} is unknown: {error.strerror}", "Check --host") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"{host}:{port} is in use", "Choose another port with --port") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise InputError(f"{host} is not an address of this machine", "Check --host") from error
        if error.errno == errno.EACCES:
            raise InputError(f"{host}:{port} is not allowed", "Choose a port of 1024 or above with --port") from error
        raise InputError(f"{host}:{port} cannot be used: {error.strerror}", "Check --host and --port") from error
