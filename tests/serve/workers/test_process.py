"""The server as a process: its address, its signals."""

import signal
import socket
import subprocess
import sys

import openai
import pytest

from herdlm.base.errors import InputError
from herdlm.serve.server import base_url, bind, serve

PROGRAM = """
import sys
from pathlib import Path
import torch
from herdlm.serve.server import serve
torch.set_num_threads(1)
serve([sys.argv[1]], port=0)
"""


def test_sigterm_lets_the_answer_under_way_end_and_the_process_exits_cleanly(folder):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        assert line.startswith("flagship answers at http://127.0.0.1:") and line.endswith("(Ctrl-C ends)\n")
        client = openai.OpenAI(base_url=line.split()[3], api_key="none", max_retries=0, timeout=200)
        stream = client.completions.create(model="flagship", prompt="The", max_tokens=200, temperature=0, stream=True)
        first = next(stream)
        process.send_signal(signal.SIGTERM)
        rest = list(stream)
        assert first.id == rest[-1].id and rest[-1].choices[0].finish_reason
        _, log = process.communicate(timeout=200)
        assert process.returncode == 0, log
        assert '"path": "/v1/completions"' in log and "Traceback" not in log
    finally:
        process.kill()


def test_a_port_in_use_is_told_before_the_model_is_loaded(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127\.0\.0\.1:{port} is in use\. Choose another port with --port"):
            serve([folder], port=port)


def test_addresses_that_cannot_be_had_are_told():
    with pytest.raises(InputError, match=r"192\.0\.2\.1 is not an address of this machine"):
        bind("192.0.2.1", 8000)
    with pytest.raises(InputError, match=r"host no\.such\.host\.invalid is unknown"):
        bind("no.such.host.invalid", 8000)
    with pytest.raises(InputError, match="port 70000 is not between"):
        bind("127.0.0.1", 70000)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_it_listens_to_this_machine_alone_unless_told_and_returns_after_a_signal(folder, number):
    told = []

    def ready(name, url):
        told.append((name, url))
        signal.raise_signal(number)

    before = signal.getsignal(number)
    serve([folder], port=0, ready=ready)
    ((name, url),) = told
    assert name == "flagship" and url.startswith("http://127.0.0.1:") and url.endswith("/v1")
    assert signal.getsignal(number) == before


def test_an_ipv6_address_is_written_in_brackets():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listener = bind("::1", 0)
    except InputError:
        pytest.skip("no IPv6 loopback here")
    with listener:
        assert base_url(listener).startswith("http://[::1]:")


def test_the_servers_own_process_does_without_torch():
    program = "import sys, herdlm.serve.server; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.slow
def test_a_model_held_by_two_processes_answers_as_by_one(folder):
    program = PROGRAM.replace("port=0)", "port=0, dtype='float32', tensor_parallel=int(sys.argv[2]))")
    answers, vectors = [], []
    for processes in ("1", "2"):
        command = [sys.executable, "-c", program, str(folder), processes]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            client = openai.OpenAI(
                base_url=process.stderr.readline().split()[3], api_key="none", max_retries=0, timeout=200
            )
            told = client.completions.create(model="flagship", prompt="The", max_tokens=20, temperature=0, logprobs=0)
            answers.append((told.choices[0].text, told.choices[0].logprobs.token_logprobs))
            vectors.append(client.embeddings.create(model="flagship", input="The").data[0].embedding)
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=200)
            assert process.returncode == 0, log
        finally:
            process.kill()
    assert answers[0][0] == answers[1][0]
    assert answers[0][1] == pytest.approx(answers[1][1], abs=1e-5)
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-6)


WITHOUT_TORCH = """
import sys
from pathlib import Path
from herdlm.serve.api.app import create_app
from herdlm.serve.server import Server
from herdlm.serve.guard.moderation import Moderator
from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.models import Models
folder = Path(sys.argv[1])
Server(create_app(Models([ModelText.read(folder)]), moderator=Moderator(folder)), lambda: None)
assert "torch" not in sys.modules
"""


def test_the_server_process_does_not_import_torch(folder):
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_errors_of_serving_need_no_web_framework():
    program = (
        "import sys; import herdlm.serve.workers.model_text; assert not {'fastapi', 'starlette'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
