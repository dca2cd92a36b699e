"""A sandbox on another machine, here on the loopback address."""

import json
import threading
import urllib.error
import urllib.request
from dataclasses import asdict

import pytest

from herdlm.base.errors import HerdError, InputError
from herdlm.sandbox.limits import Limits
from herdlm.sandbox.remote import server
from herdlm.sandbox.sandbox import Job, open_sandbox

KEY = "0123456789abcdef"


@pytest.fixture
def address(sandbox):
    with server(sandbox, KEY, "127.0.0.1", 0) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_programs_and_tests_run_on_the_other_machine(address):
    with open_sandbox(address, key=KEY, workers=2) as remote:
        assert remote.isolation == address
        result = remote.run("print(input(), open('a').read())", stdin="x", files={"a": b"y"})
        assert (result.status, result.stdout) == ("ok", "x y\n")
        assert remote.run_tests("def f(): return 1", "assert f() == 1").passed
        assert not remote.run_tests("def f(): return 1", "assert f() == 2").passed
        assert [each.stdout for each in remote.map([Job(f"print({n})") for n in range(4)])] == [
            "0\n",
            "1\n",
            "2\n",
            "3\n",
        ]


def test_a_wrong_key_is_refused(address):
    with pytest.raises(InputError, match="wrong key"):
        open_sandbox(address, key="x" * 16)
    with pytest.raises(InputError, match="needs a key"):
        open_sandbox(address)


def test_a_machine_that_does_not_answer_is_named():
    with pytest.raises(HerdError, match="http://127.0.0.1:9 does not answer"):
        open_sandbox("http://127.0.0.1:9", key=KEY)


def test_limits_above_the_servers_are_refused(address, sandbox):
    with open_sandbox(address, key=KEY, workers=1) as remote, pytest.raises(InputError, match="wall_seconds = 1000"):
        remote.run("pass", limits=Limits(wall_seconds=1000))


def test_a_short_key_is_refused(sandbox):
    with pytest.raises(InputError, match="fewer than 16"):
        server(sandbox, "short", "127.0.0.1", 0)


def job(**changes):
    whole = dict(program="", interpreter=None, stdin="", files={}, limits=asdict(Limits()), tests=False)
    return {"job": whole | changes, "tests": None}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/run", job(), 200),
        ("/other", job(), 404),
        ("/run", [], 400),
        ("/run", job(program=1), 400),
        ("/run", job(more=1), 400),
        ("/run", job(interpreter="sh"), 400),
        ("/run", job(files={"../x": ""}), 400),
        ("/run", job(files={"x": 1}), 400),
        ("/run", job(limits=[]), 400),
        ("/run", job(limits={"time": 1}), 400),
        ("/run", job(limits={"wall_seconds": "1"}), 400),
        ("/run", job(tests=True), 400),
        ("/run", job(tests=True) | {"tests": {"tests": "", "prelude": "", "entry_point": 1}}, 400),
    ],
)
def test_only_well_formed_jobs_are_run(address, path, body, status):
    headers = {"Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(address + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = answer.status
    except urllib.error.HTTPError as error:
        with error:
            found = error.code
    assert found == status
