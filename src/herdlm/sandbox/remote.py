"""A sandbox on another machine: jobs as JSON over HTTP, with a key."""

from __future__ import annotations

import hmac
import json
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from herdlm.base.errors import HerdError, InputError
from herdlm.sandbox.limits import Limits
from herdlm.sandbox.worker import seconds_for

if TYPE_CHECKING:
    from herdlm.sandbox.sandbox import Sandbox

LONGEST_BODY = 2**26
QUEUE_SECONDS = 600.0  # how long a run may wait for a free worker
SHORTEST_KEY = 16


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
            raise InputError(f"the sandbox at {self._address} refused: {error.code} {said}", "Check key and job") from error
        except (OSError, ValueError) as error:
            raise HerdError(
                f"the sandbox at {self._address} does not answer: {error}", "Start `herdlm sandbox serve` there"
            ) from error

    def check(self) -> str:
        """The isolation that the other machine has. Raises HerdError if it does not answer, InputError if it refuses."""
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
        raise ValueError("program, stdin or files has the wrong type")
    if job["interpreter"] is not None and not (
        isinstance(job["interpreter"], list) and all(isinstance(word, str) for word in job["interpreter"])
    ):
        raise ValueError("interpreter is not a list of words")
    for name, content in job["files"].items():
        if not isinstance(content, str) or name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise ValueError("files are not text by relative paths")
    if not isinstance(job["limits"], dict):
        raise ValueError("limits is not an object")
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


def server(sandbox: Sandbox, key: str, host: str, port: int) -> ThreadingHTTPServer:
    """An HTTP server that runs jobs in ``sandbox``; the caller calls ``serve_forever``.

    Raises:
        InputError: the key is short enough to be guessed.
    """
    if len(key) < SHORTEST_KEY:
        raise InputError(f"the key has fewer than {SHORTEST_KEY} characters", "Give a long random one: openssl rand -hex 32")

    class Handler(BaseHTTPRequestHandler):
        timeout = 60

        def do_POST(self) -> None:
            given = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), key.encode()):
                return self.reply(401, {"error": "wrong key"})
            try:
                length = int(self.headers.get("Content-Length", ""))
            except ValueError:
                return self.reply(411, {"error": "no length"})
            if not 0 <= length <= LONGEST_BODY:
                return self.reply(413, {"error": "the job is too long"})
            try:
                body = json.loads(self.rfile.read(length))
                if self.path == "/check":
                    return self.reply(200, {"isolation": sandbox.isolation})
                if self.path != "/run":
                    return self.reply(404, {"error": "no such path"})
                job, tests = checked(body, sandbox.limits)
            except (ValueError, InputError, RecursionError) as error:
                return self.reply(400, {"error": str(error)})
            return self.reply(200, sandbox.execute(job, tests))

        def reply(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode("ascii")
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server calls
            """Keep programs and their names out of logs."""

    return ThreadingHTTPServer((host, port), Handler)
