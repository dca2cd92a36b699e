"""The terminal client: through a pipe as a process, and its commands one by one."""

import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from herdlm.base.errors import InputError
from herdlm.generate import SamplingParams
from herdlm.serve.once import generate_once
from herdlm.serve.served import ServedModel
from herdlm.serve.terminal import Conversation, chat

PROGRAM = """
import sys
from pathlib import Path
import torch
from herdlm.serve.terminal import chat
torch.set_num_threads(1)
chat(Path(sys.argv[1]), temperature=0.0, max_tokens=int(sys.argv[2]))
"""


@pytest.fixture
def talk(folder):
    model = ServedModel.load(folder)
    params = SamplingParams(temperature=0.0, max_tokens=8)
    return Conversation(model, params, 0, system=None, answers=io.StringIO(), notes=io.StringIO())


def test_lines_from_a_pipe_are_answered_and_the_dialog_goes_on(folder, talk):
    lines = "Hello there\n\nAnd again\n/reset\nHello there\n/quit\nnever read\n"
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), "8"],
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    first = generate_once(folder, "Hello there", chat=True, temperature=0, max_tokens=8)[0].text
    for line in ("Hello there", "And again"):
        assert talk.take(line)
    answers = talk.answers.getvalue()
    assert answers.startswith(f"{first}\n")
    assert process.stdout == f"{answers}{first}\n"
    assert process.stderr.count("(cut after 8 tokens)") == 3 and "forgotten" in process.stderr


def test_the_dialog_and_the_system_message_shape_the_prompt(talk):
    talk.take("/system Be brief.")
    talk.take("Hello")
    assert talk.system == "Be brief."
    assert [message["role"] for message in talk.messages] == ["user", "assistant"]
    expected = talk.model.chat_prompt(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    )
    (completions,) = talk.model.engine.generate(
        [expected], SamplingParams(temperature=0, max_tokens=8, stop_tokens=talk.model.stop_tokens)
    )
    assert talk.messages[1]["content"] == completions[0].text
    talk.take("/reset")
    assert talk.messages == [] and talk.system == "Be brief."
    talk.take("/system")
    assert talk.system is None


def test_an_unknown_command_is_no_question(talk):
    assert talk.take("/sytem x")
    assert "no command /sytem: /system TEXT" in talk.notes.getvalue()
    assert talk.answers.getvalue() == "" and talk.messages == []


def test_a_full_context_is_told_and_the_dialog_kept(talk):
    talk.take("Hello")
    talk.take("word " * 300)
    assert "fills the context of 256 tokens: /reset" in talk.notes.getvalue()
    assert len(talk.messages) == 2


def test_a_dialog_without_room_for_a_full_answer_gets_a_shorter_one(folder):
    model = ServedModel.load(folder)
    params = SamplingParams(temperature=0.0, max_tokens=10_000)
    talk = Conversation(model, params, 0, system=None, answers=io.StringIO(), notes=io.StringIO())
    talk.take("Hello")
    room = 256 - len(model.chat_prompt([{"role": "user", "content": "Hello"}]))
    assert talk.notes.getvalue() == f"(cut after {room} tokens)\n"


def test_ctrl_c_stops_an_answer_and_nothing_else(talk):
    talk.params = SamplingParams(temperature=0.0, max_tokens=200)
    engine, step = talk.model.engine, talk.model.engine.step
    steps = 0

    def interrupted():
        nonlocal steps
        steps += 1
        if steps == 5:
            signal.raise_signal(signal.SIGINT)
        return step()

    engine.step = interrupted
    talk.take("Hello")
    assert steps == 5 and not engine.busy
    assert (engine.pool.references > 0).sum() == 0
    assert talk.notes.getvalue() == "(stopped)\n"
    assert talk.messages[1]["content"] == talk.answers.getvalue()[:-1] != ""
    with pytest.raises(KeyboardInterrupt):  # outside of answers it means what it always means
        signal.raise_signal(signal.SIGINT)


def test_a_wrong_option_is_refused_before_the_model_is_loaded(folder):
    with pytest.raises(InputError, match="temperature"):
        chat(folder, temperature=-1)
    with pytest.raises(InputError, match="does not exist"):
        chat(folder / "nowhere")


def test_at_a_terminal_ctrl_c_stops_an_answer_and_ctrl_d_leaves(folder):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), "240"], stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True, preexec_fn=_own_terminal,
    )  # fmt: skip
    os.close(theirs)
    screen = Screen(ours)
    try:
        screen.wait_for("Talking to flagship.")
        screen.wait_for("> ")
        os.write(ours, b"\x03")  # drops the line, does not leave
        screen.wait_for("> ")
        os.write(ours, b"/system Be brief.\n")
        screen.wait_for("The system message is set.")
        os.write(ours, b"Hello\n")
        screen.wait_for("(cut after")
        screen.wait_for("> ")
        os.write(ours, b"\x04")
        assert process.wait(20) == 0, screen.text
    finally:
        process.kill()
        os.close(ours)


def _own_terminal():
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Screen:
    """What a terminal has shown; ``wait_for`` looks only at what came after the last thing found."""

    def __init__(self, descriptor):
        self.text, self.seen = "", 0
        threading.Thread(target=self._read, args=(descriptor,), daemon=True).start()

    def _read(self, descriptor):
        while True:
            try:
                new = os.read(descriptor, 4096)
            except OSError:
                return
            self.text += new.decode(errors="replace")

    def wait_for(self, text):
        deadline = time.monotonic() + 30
        while (at := self.text.find(text, self.seen)) < 0:
            assert time.monotonic() < deadline, f"{text!r} did not come after {self.text[self.seen :]!r}"
            time.sleep(0.01)
        self.seen = at + len(text)
