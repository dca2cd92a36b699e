"""A sandbox on another machine: jobs as JSON over HTTP, with a key."""

from __future__ import annotations

import hmac
import json
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from herdlm.base.errors import HerdError, InputError
from herdlm.sandbox.limits import Limits
from herdlm.sandbox.worker import seconds_for

LONGEST_BODY = 2**26
QUEUE_SECONDS = 600.0  # how long a run may wait for a free worker
SHORTEST_KEY = 16


class Runner(Protocol):
    """What a server needs of a :class:`herdlm.sandbox.sandbox.Sandbox`."""

    isolation: str
    limits: Limits

    def execute(self, job: dict[str, Any], tests: dict[str, Any] | None) -> dict[str, Any]:
        """Run a job on the next free worker."""


class RemoteWorker:
    """Sends jobs to ``herdlm sandbox serve``. Several threads may use one."""

    def __init__(self, address: str, key: str | None) -> None:
        if not key:
            raise InputError(f"the sandbox at {address} needs a key", "Give the key of `herdlm sandbox serve` as key")
        self._address, self._key = address.rstrip("/"), key

    def _ask(self, path: str, body: dict[str, Any], seconds: float) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the address begins with http
            self._address + path,
            json.dumps(body).encode("ascii"),
            {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
                result: dict[str, Any] = json.loads(answer.read())
                return result
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(1000).decode("utf-8", "replace")
            raise InputError(
                f"the sandbox at {self._address} refused: {error.code} {said}", "Check key and job"
            ) from error
        except (OSError, ValueError) as error:
            raise HerdError(
                f"the sandbox at {self._address} does not answer: {error}", "Start `herdlm sandbox serve` there"
            ) from error

    def check(self) -> str:
        """The isolation that the other machine has.

        Raises:
            HerdError: it does not answer.
            InputError: it refuses the key.
        """
        return str(self._ask("/check", {}, 30)["isolation"])

    def execute(self, job: dict[str, Any], tests: dict[str, Any] | None) -> dict[str, Any]:
        return self._ask("/run", {"job": job, "tests": tests}, QUEUE_SECONDS + seconds_for(job))

    def close(self) -> None:
        """Nothing stays between jobs."""


def checked(body: Any, most: Limits) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A request's job and tests, with limits no higher than the server's own. Raises ValueError for anything else."""
    if not isinstance(body, dict) or set(body) != {"job", "tests"}:
        raise ValueError("the body is not an object of job and tests")
    job, tests = body["job"], body["tests"]
    if not isinstance(job, dict) or set(job) != {"program", "interpreter", "stdin", "files", "limits", "tests"}:
        raise ValueError("the job has other fields")
    if not (isinstance(job["program"], str) and isinstance(job["stdin"], str) and isinstance(job["files"], dict)):
        raise ValueError("program, stdin or files has the wrong type")  # noqa: TRY004 - one error for all
    if job["interpreter"] is not None and not (
        isinstance(job["interpreter"], list) and all(isinstance(word, str) for word in job["interpreter"])
    ):
        raise ValueError("interpreter is not a list of words")
    for name, content in job["files"].items():
        if not isinstance(content, str) or name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise ValueError("files are not text by relative paths")
    if not isinstance(job["limits"], dict):
        raise ValueError("limits is not an object")  # noqa: TRY004
    for name, value in vars(Limits.from_dict(job["limits"])).items():
        if value > getattr(most, name):
            raise ValueError(f"{name} = {value} is more than this server's {getattr(most, name)}")
    if job["tests"] is not (tests is not None):
        raise ValueError("the job's tests are missing")
    if tests is not None and not (
        isinstance(tests, dict)
        and set(tests) == {"tests", "prelude", "entry_point"}
        and all(isinstance(tests[name], str) for name in ("tests", "prelude"))
        and isinstance(tests["entry_point"], str | None)
    ):
        raise ValueError("tests has other fields")
    return job, tests


def server(sandbox: Runner, key: str, host: str, port: int) -> ThreadingHTTPServer:
    """An HTTP server that runs jobs in ``sandbox``; the caller calls ``serve_forever``.

    Raises:
        InputError: the key is short enough to be guessed.
    """
    if len(key) < SHORTEST_KEY:
        raise InputError(
            f"the key has fewer than {SHORTEST_KEY} characters", "Give a long random one: openssl rand -hex 32"
        )

    class Handler(BaseHTTPRequestHandler):
        timeout = 60

        def do_POST(self) -> None:
            given = self.headers.get("Authorization", "").removeprefix("Bearer ")
            length = self.headers.get("Content-Length", "")
            if not hmac.compare_digest(given.encode(), key.encode()):
                self.reply(401, {"error": "wrong key"})
            elif not length.isdigit() or int(length) > LONGEST_BODY:
                self.reply(413, {"error": "no length of the job, or one that is too long"})
            elif self.path == "/check":
                self.reply(200, {"isolation": sandbox.isolation})
            elif self.path != "/run":
                self.reply(404, {"error": "no such path"})
            else:
                self.run(int(length))

        def run(self, length: int) -> None:
            try:
                job, tests = checked(json.loads(self.rfile.read(length)), sandbox.limits)
            except (ValueError, InputError, RecursionError) as error:
                self.reply(400, {"error": str(error)})
            else:
                self.reply(200, sandbox.execute(job, tests))

        def reply(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode("ascii")
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep programs and their names out of logs."""

    return ThreadingHTTPServer((host, port), Handler)
