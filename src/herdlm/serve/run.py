"""The server process: its address, its log, its end."""

from __future__ import annotations

import errno
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError

try:
    import uvicorn

    from herdlm.serve.app import create_app
except ModuleNotFoundError as error:
    raise InputError(f"serving needs the package {error.name}", "pip install 'herdlm[serve]'") from error
from herdlm.serve.resolve import model_folder
from herdlm.serve.served import ServedModel

BACKLOG = 2048
# After SIGTERM or Ctrl-C, answers under way have this long to end; then they are dropped.
FINISH_SECONDS = 10

# Prompts and answers are never logged: the access log has address, method, path and status.
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
    "loggers": {
        "uvicorn.error": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "uvicorn.access": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "herdlm.serve": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}


def say(line: str) -> None:
    """Write a line to standard error at once."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def serve(
    path: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    ready: Callable[[str, str], None] | None = None,
) -> None:
    """Serve the model that ``path`` means until SIGTERM or Ctrl-C.

    Args:
        path: a model folder or a run, whose flagship is meant then.
        port: 0 for any free one.
        seed: see :func:`herdlm.serve.app.create_app`.
        ready: called once requests are answered, with the model's name and the base URL; by default one line says so.

    Raises:
        InputError: there is no usable model, or the address cannot be had.
    """
    model_folder(path)  # a wrong path, or an address in use, is told before the model is loaded
    with bind(host, port) as listener:
        model = ServedModel.load(path, device=device, dtype=dtype)
        with _address_errors(host, port):
            listener.listen(BACKLOG)
        url = base_url(listener)

        def announce() -> None:
            if ready:
                ready(model.name, url)
            else:
                say(f"{model.name} answers at {url} (Ctrl-C ends)")

        config = uvicorn.Config(
            create_app(model, seed=seed), log_config=LOGGING, backlog=BACKLOG, timeout_graceful_shutdown=FINISH_SECONDS
        )
        Server(config, announce).run(sockets=[listener])


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to an address, not listening yet.

    Raises:
        InputError: the address is in use, not this machine's, or not allowed.
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
    """What a client is given as base URL."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


class Server(uvicorn.Server):
    """Uvicorn that says when it is ready and, having finished after a signal, simply returns."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer, and say so."""
        await super().startup(sockets)
        self._announce()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT end the server. Uvicorn's own raises them again, as if the process had been killed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
            raise InputError(f"{host} is no address of this machine", "Check --host") from error
        if error.errno == errno.EACCES:
            raise InputError(f"{host}:{port} is not allowed", "Choose a port of 1024 or above with --port") from error
        raise InputError(f"{host}:{port} cannot be used: {error.strerror}", "Check --host and --port") from error
