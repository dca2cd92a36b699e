"""The terminal client: through a pipe, at a pseudo-terminal, with a model here and with a server's."""

import io
import json
import os
import re
import signal
import stat
import sys
import threading
import time

import pexpect
import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.base.errors import HerdError, InputError
from herdlm.generate import SamplingParams
from herdlm.serve.terminal.client import Cancellation, LocalModel
from herdlm.serve.terminal.conversation import Conversation
from herdlm.serve.terminal.line_editor import private_file
from herdlm.serve.terminal.once import generate_once
from herdlm.serve.terminal.remote import RemoteModels, ServerError
from herdlm.serve.terminal.sanitize import TerminalSanitizer, sanitize
from herdlm.serve.terminal.terminal import chat
from tests import warm
from tests.serve.scripted import Scripted, event, failure, served

PROGRAM = """
import sys
import torch
from herdlm.cli.app import main
torch.set_num_threads(1)
sys.argv[0] = "herdlm"
main()
"""


def piped(lines, *arguments, **environment):
    return warm.run("herdlm.cli", "chat", *arguments, env=environment, text=lines)


PROMPT = r"\[0m>"  # and a cursor behind it


class Terminal(io.StringIO):
    """A text that says that it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture(scope="module")
def local(folder):
    return LocalModel(folder)


@pytest.fixture
def talk(local):
    params = SamplingParams(temperature=0.0, max_tokens=8)
    return Conversation(local, params, answers=io.StringIO(), notes=io.StringIO())


@pytest.fixture
def scripted():
    script = Scripted()
    with served(script.app()) as url:
        script.url = url
        yield script


def with_server(scripted, answers=None, **options):
    return Conversation(
        RemoteModels(scripted.url, **options),
        SamplingParams(temperature=0.0, max_tokens=8),
        answers=answers or io.StringIO(),
        notes=io.StringIO(),
    )


def test_lines_from_a_pipe_are_answered_and_the_dialog_goes_on(folder, talk):
    lines = "Hello there\n\nAnd again\n/clear\nHello there\n/quit\nnever read\n"
    process = piped(lines, folder, "--max-tokens", 8)
    assert process.returncode == 0, process.stderr
    first = generate_once(folder, "Hello there", chat=True, temperature=0, max_tokens=8)[0].text
    for line in ("Hello there", "And again"):
        assert talk.handle(line)
    answers = talk.answers.getvalue()
    assert answers.startswith(f"{first}\n")
    assert process.stdout == f"{answers}{first}\n"
    assert process.stderr.count("(cut after 8 tokens)\n") == 3 and "deleted" in process.stderr


def test_a_line_from_a_pipe_goes_on_behind_a_backslash(folder, talk):
    process = piped("one\\\ntwo\n", folder, "--max-tokens", 8)
    talk.handle("one\ntwo")
    assert process.stdout == talk.answers.getvalue()


def test_questions_without_answer_make_a_pipe_fail(folder):
    process = piped(f"Hello\n{'word ' * 300}\nHello\n", folder, "--max-tokens", 8)
    assert process.returncode == 1
    assert "fills the context" in process.stderr and "1 questions had no answer" in process.stderr
    assert len(process.stdout.splitlines()) >= 2


def test_the_dialog_and_the_system_message_shape_the_prompt(talk):
    talk.handle("/system Be brief.")
    talk.handle("Hello")
    assert talk.system == "Be brief."
    assert [message["role"] for message in talk.messages] == ["user", "assistant"]
    model = talk.client.model
    expected = model.chat_prompt([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])
    (completions,) = model.engine.generate(
        [expected], SamplingParams(temperature=0, max_tokens=8, stop_tokens=model.stop_tokens)
    )
    assert talk.messages[1]["content"] == model.answer_text(completions[0].text)
    talk.handle("/reset")
    assert talk.messages == [] and talk.system == "Be brief."
    talk.handle("/system")
    assert talk.system is None


def test_an_unknown_command_is_no_question(talk):
    assert talk.handle("/sytem x")
    assert "Unknown command /sytem. The commands are /system /set" in talk.notes.getvalue()
    assert talk.answers.getvalue() == "" and talk.messages == []


def test_a_full_context_is_told_and_the_dialog_kept(talk):
    talk.handle("Hello")
    talk.handle("word " * 300)
    assert "fills the context of 256 tokens. Use /clear" in talk.notes.getvalue()
    assert len(talk.messages) == 2 and talk.failed == 1


def test_a_dialog_without_room_for_a_full_answer_gets_a_shorter_one(talk):
    talk.params = SamplingParams(temperature=0.0, max_tokens=10_000)
    talk.handle("Hello")
    room = 256 - len(talk.client.model.chat_prompt([{"role": "user", "content": "Hello"}]))
    assert talk.notes.getvalue() == f"(cut after {room} tokens)\n"


def test_set_changes_how_answers_are_drawn_and_tells_what_is_set(talk):
    talk.handle("/set temperature=0.7 top_k=5 seed=3 max_tokens=6 stop=END\\sOF\\n")
    assert talk.params == SamplingParams(temperature=0.7, top_k=5, seed=3, max_tokens=6, stop=("END OF\n",))
    assert "temperature=0.7 top_p=1 top_k=5 min_p=0 max_tokens=6" in talk.notes.getvalue()
    before = talk.params
    for wrong in ("temperature=-1", "warmth=3", "top_k=1.5", "temperature", "max_tokens=0"):
        talk.notes.truncate(0)
        talk.handle(f"/set top_p=0.5 {wrong}")
        assert wrong.partition("=")[0] in talk.notes.getvalue() and talk.params == before
    talk.handle("/set stop=")
    assert talk.params.stop == ()


def test_regenerate_draws_another_answer_to_the_same_question_and_a_seed_repeats_them(talk):
    talk.handle("/set temperature=1 seed=1")
    talk.handle("Hello")
    first = talk.messages[1]["content"]
    talk.handle("/regenerate")
    second = talk.messages[1]["content"]
    assert len(talk.messages) == 2 and talk.messages[0]["content"] == "Hello" and first != second
    talk.handle("/clear")
    talk.handle("/set seed=1")
    talk.handle("Hello")
    assert talk.messages[1]["content"] == first
    talk.handle("/clear")
    talk.handle("/regenerate")
    assert "no answer to sample again" in talk.notes.getvalue()


def test_an_answer_that_cannot_be_drawn_again_is_kept(talk):
    talk.handle("Hello")
    before = list(talk.messages)
    talk.handle("/set max_tokens=300 min_tokens=300")
    talk.handle("/regenerate")
    assert talk.messages == before and "min_tokens = 300" in talk.notes.getvalue()


def test_save_writes_the_dialog_and_never_over_a_file(talk, tmp_path):
    talk.handle("/system Be brief.")
    talk.handle("Hello")
    talk.handle(f"/save {tmp_path}/dialog.json")
    saved = json.loads((tmp_path / "dialog.json").read_text(encoding="utf-8"))
    assert saved["messages"] == [{"role": "system", "content": "Be brief."}, *talk.messages]
    assert saved["model"] == "flagship" and saved["sampling"]["max_tokens"] == 8
    talk.handle(f"/save {tmp_path}/dialog.txt")
    text = (tmp_path / "dialog.txt").read_text(encoding="utf-8")
    assert text.startswith("system:\nBe brief.\n\nuser:\nHello\n\nassistant:\n")
    talk.handle(f"/save {tmp_path}/dialog.txt")
    assert (
        "dialog.txt exists" in talk.notes.getvalue() and (tmp_path / "dialog.txt").read_text(encoding="utf-8") == text
    )
    talk.handle(f"/save {tmp_path}/nowhere/dialog.txt")
    assert "cannot be written" in talk.notes.getvalue()


def test_another_model_takes_over_the_dialog_and_a_wrong_one_does_not(folder, talk, tmp_path):
    talk.client = LocalModel(folder)
    other = tmp_path / "small"
    other.symlink_to(folder)
    talk.handle("Hello")
    talk.handle(f"/model {other}")
    assert talk.client.name == "small" and len(talk.messages) == 2
    talk.handle(f"/model {tmp_path}/nowhere")
    assert talk.client.name == "small" and "does not exist" in talk.notes.getvalue()
    talk.handle("/model")
    assert talk.notes.getvalue().endswith("* small\n")


def test_ctrl_c_stops_an_answer_and_nothing_else(talk):
    talk.params = SamplingParams(temperature=0.0, max_tokens=200)
    engine, step = talk.client.model.engine, talk.client.model.engine.step
    steps = 0

    def interrupted():
        nonlocal steps
        steps += 1
        if steps == 5:
            signal.raise_signal(signal.SIGINT)
        return step()

    engine.step = interrupted
    try:
        talk.handle("Hello")
    finally:
        engine.step = step
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
    with pytest.raises(InputError, match="no model to chat with"):
        chat()


def test_a_servers_model_answers_as_the_same_model_here(server, talk):
    remote = Conversation(RemoteModels(server.url), talk.params, answers=io.StringIO(), notes=io.StringIO())
    for line in ("/system Be brief.", "Hello there", "And again"):
        talk.handle(line)
        remote.handle(line)
    assert remote.messages == talk.messages
    assert remote.notes.getvalue() == talk.notes.getvalue()


def test_the_server_is_asked_for_what_was_set(scripted):
    talk = with_server(scripted, key="sk-test", name="small")
    talk.handle("/set temperature=0.5 top_k=7 min_p=0.1 stop=END")
    talk.handle("/system Be brief.")
    talk.handle("Hello")
    body, headers = scripted.asked[-1]
    assert headers["authorization"] == "Bearer sk-test"
    seed = body.pop("seed")
    assert 0 <= seed < 2**63
    assert body == {
        "model": "small",
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": 7,
        "min_p": 0.1,
        "max_completion_tokens": 8,
        "stop": ["END"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    }
    assert talk.answers.getvalue() == "Hello\n"


def test_a_servers_models_are_listed_and_chosen(scripted):
    talk = with_server(scripted)
    talk.handle("/model")
    assert talk.notes.getvalue() == "* flagship\n  small\n"
    talk.handle("/model small")
    talk.handle("Hello")
    assert scripted.asked[-1][0]["model"] == "small"
    talk.handle("/model large")
    assert talk.client.name == "small" and "no model 'large'. It has flagship, small" in talk.notes.getvalue()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (failure(429, "8 requests are under way", {"retry-after": "3"}), "8 requests are under way. Retry after 3 s"),
        (failure(500, None), "answered with status 500"),
        (["Begun", b'data: {"error": {"message": "the worker died"}}\n\n'], "the worker died"),
        ([b"data: {\n\n"], "is not JSON"),
        ([b"data: []\n\n"], "does not follow the OpenAI API"),
    ],
)
def test_a_servers_failure_is_told_and_the_dialog_kept(scripted, answer, says):
    talk = with_server(scripted)
    talk.handle("Hello")
    scripted.answer = lambda body: answer
    talk.handle("Again")
    assert says in talk.notes.getvalue() and len(talk.messages) == 2 and talk.failed == 1


def test_a_stream_cut_off_is_no_answer(scripted):
    async def cut(pieces):
        yield event({"choices": [{"index": 0, "delta": {"content": "Begun"}}]})

    talk = with_server(scripted)
    scripted._stream = cut
    talk.handle("Hello")
    assert "before the answer was complete" in talk.notes.getvalue() and talk.messages == []


def test_a_server_that_cannot_be_had_is_told():
    with pytest.raises(ServerError, match="cannot be reached"):
        RemoteModels("http://127.0.0.1:9/v1")
    for wrong in ("ftp://127.0.0.1", "http://", "http://x:port"):
        with pytest.raises(InputError, match="not the address of a server"):
            RemoteModels(wrong)


def test_a_wrong_key_is_told_with_what_to_do(scripted):
    scripted.key = "sk-right"
    with pytest.raises(HerdError, match="give a valid key. Give a key with --key or in HERDLM_API_KEY"):
        RemoteModels(scripted.url)
    process = piped("Hello\n", "--url", scripted.url, HERDLM_API_KEY="sk-right")
    assert (process.returncode, process.stdout) == (0, "Hello\n"), process.stderr
    with pytest.raises(InputError, match="characters that no key has"):
        RemoteModels(scripted.url, key="a\nb: c")


def test_stopping_hangs_up_at_once_even_while_nothing_comes(scripted):
    scripted.answer = lambda body: ["Begun", 10_000]
    client, cancellation, pieces = RemoteModels(scripted.url), Cancellation(), []

    def write(piece):
        pieces.append(piece)
        threading.Timer(0.2, cancellation.cancel).start()

    result = client.answer([{"role": "user", "content": "x"}], SamplingParams(), write, cancellation)
    assert (result.text, result.reason) == ("Begun", None)
    deadline = time.monotonic() + 50
    while not scripted.left:
        assert time.monotonic() < deadline
        time.sleep(0.02)


EVIL = (
    "a\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b]52;c;ZXZpbA==\x1b\\ \x1bcb\x9b2J\x08\x7f\rc\r\nd\u202ee\x00\x1b[6n"
    "\x1bP1$qm\x1b\\f"
)
CLEAN = "ared  \u241bcb\u2408\u2421\u240dc\nd\ufffde\u2400f"


def test_what_would_steer_a_terminal_never_reaches_it(scripted):
    scripted.answer = lambda body: list(EVIL)
    terminal, plain = with_server(scripted, Terminal()), with_server(scripted)
    for talk in (terminal, plain):
        talk.handle("Hello")
        assert talk.messages[1]["content"] == EVIL  # the dialog is what the model said
    assert terminal.answers.getvalue() == f"{CLEAN}\n"
    assert plain.answers.getvalue() == f"{EVIL}\n"  # a file gets the answer as it is
    scripted.answer = lambda body: failure(400, "no \x1b[2J")
    plain.handle("Hello")
    assert "\x1b" not in plain.notes.getvalue()


@given(
    st.lists(st.sampled_from([*"\x1b[]\\0;m\x07\x9b\x9d\x9c\r\nPabc \u202e", "\x1b[", "\x1b]", "\x1b\\"])).map("".join)
)
def test_no_text_brings_a_control_character_however_it_is_cut(text):
    whole = sanitize(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", whole)
    cleaner = TerminalSanitizer()
    assert "".join(map(cleaner.feed, text)) + cleaner.end() == whole
    if not set(text) & set("\x1b\x9b\x9d\x9c\r\x07\u202e"):
        assert whole == text


def test_the_history_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "state" / "herdlm" / "chat_history"
    assert private_file(path) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    private_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "file").write_text("")
    assert private_file(tmp_path / "file" / "chat_history") is None
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert private_file(tmp_path / "link") is None


@pytest.fixture
def at_terminal(tmp_path):
    """Starts ``herdlm chat`` at a pseudo-terminal."""
    children = []

    def start(*arguments):
        child = pexpect.spawn(
            sys.executable,
            ["-c", PROGRAM, "chat", *map(str, arguments)],
            encoding="utf-8",
            timeout=120,
            dimensions=(40, 200),
            env=os.environ | {"XDG_STATE_HOME": str(tmp_path), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        )
        children.append(child)
        child.expect("Talking to ")
        child.expect(PROMPT)
        return child

    yield start
    for child in children:
        child.close(force=True)


def test_at_a_terminal_ctrl_c_stops_an_answer_and_ctrl_d_leaves(at_terminal, folder):
    child = at_terminal(folder, "--max-tokens", 240)
    child.send("dropped\x03")
    child.expect(PROMPT)
    child.send("/system Be brief.\r")
    child.expect("The system message is set.")
    child.send("Hello\r")
    child.expect(r"\((cut after|stopped).*tokens/s, first after [\d.]+ s\)")
    child.expect(PROMPT)
    child.send("\x04")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 0


def test_at_a_terminal_ctrl_c_stops_a_servers_answer(at_terminal, scripted):
    scripted.answer = lambda body: ["Begun", 10_000] if len(body["messages"]) == 1 else ["More"]
    child = at_terminal("--url", scripted.url)
    child.send("Hello\r")
    child.expect("Begun")
    child.sendintr()
    child.expect(r"\(stopped")
    child.expect(PROMPT)
    child.send("Go on\r")
    child.expect("More")
    assert scripted.asked[-1][0]["messages"][1] == {"role": "assistant", "content": "Begun"}


def test_entries_of_several_lines_are_typed_pasted_and_recalled_in_another_session(at_terminal, scripted, tmp_path):
    scripted.answer = lambda body: ["Yes"]
    child = at_terminal("--url", scripted.url)
    child.send("one\\\rtwo\x1b\rthree\r")
    child.expect("Yes")
    child.expect(PROMPT)
    child.send("\x1b[200~pasted\n/quit\nlines\x1b[201~\r")
    child.expect("Yes")
    child.expect(PROMPT)
    said = [body["messages"][-1]["content"] for body, _ in scripted.asked]
    assert said == ["one\ntwo\nthree", "pasted\n/quit\nlines"]
    child.send("/qu\t")
    child.expect("it")
    child.send("\r")
    child.expect(pexpect.EOF)
    history = tmp_path / "herdlm" / "chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    again = at_terminal("--url", scripted.url)
    again.send("\x1b[A\x1b[A")
    again.expect("lines")
    again.send("!\r")
    again.expect("Yes")
    assert scripted.asked[-1][0]["messages"][-1]["content"] == "pasted\n/quit\nlines!"


def test_at_a_terminal_a_hostile_answer_cannot_steer_it(at_terminal, scripted):
    scripted.answer = lambda body: [EVIL, " end"]
    child = at_terminal("--url", scripted.url)
    child.send("Hello\r")
    child.expect("ared")
    child.expect(" end")
    shown = child.before
    assert "\x07" not in shown and "\x9b" not in shown and "title" not in shown
    assert "\x1b[2J" not in shown and "\x1bc" not in shown and "\u241bc" in shown
