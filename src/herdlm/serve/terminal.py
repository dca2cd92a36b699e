"""A chat in the terminal, on the engine in this process. Without a terminal it answers the lines it reads."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

from herdlm.base.seeds import derive_seed
from herdlm.generate.request import SamplingParams
from herdlm.serve.served import ContextError, ServedModel
from herdlm.tokens.chat import Message

PROMPT = "> "
COMMANDS = "/system TEXT sets the system message, /reset forgets the dialog, /quit or Ctrl-D leaves"


def chat(
    path: Path,
    *,
    system: str | None = None,
    temperature: float = 0.7,
    top_p: float = 1.0,
    max_tokens: int = 512,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
) -> None:
    """Talk to the model that ``path`` means: answers go to standard output, everything else to standard error.

    Args:
        path: a model folder or a run, whose flagship is meant then.
        system: the system message.
        max_tokens: of one answer; less where the context ends before.
        seed: answer number i of the session draws with a seed that depends on this and i.

    Raises:
        InputError: there is no usable model, or an option is out of range.
    """
    params = SamplingParams(temperature=temperature, top_p=top_p, max_tokens=max_tokens)  # a wrong one fails here
    model = ServedModel.load(path, device=device, dtype=dtype)
    model.chat_prompt([])  # as does a tokenizer without a dialog format
    Conversation(model, params, seed, system=system, answers=sys.stdout, notes=sys.stderr).run(sys.stdin)


class Conversation:
    """A dialog with one model, line by line.

    Args:
        params: how answers are drawn; seed and stop tokens are filled in.
        answers, notes: where answers go, and everything else.
    """

    def __init__(
        self, model: ServedModel, params: SamplingParams, seed: int, *, system: str | None, answers: TextIO,
        notes: TextIO,
    ) -> None:  # fmt: skip
        self.model, self.params, self.seed = model, params, seed
        self.system = system
        self.messages: list[Message] = []
        self.answers, self.notes = answers, notes
        self._asked = 0

    def run(self, source: TextIO) -> None:
        """Obey and answer line after line until the end of ``source`` or /quit."""
        if source.isatty():
            self._note(f"Talking to {self.model.name}. {COMMANDS}; Ctrl-C stops an answer.")
        for line in _typed() if source.isatty() else source:
            if not self.take(line.strip()):
                break

    def take(self, line: str) -> bool:
        """Obey or answer one line; false when it asks to leave."""
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return False
        if command == "/reset":
            self.messages.clear()
            self._note("The dialog is forgotten.")
        elif command == "/system":
            self.system = rest.strip() or None
            self._note("The system message is set." if self.system else "There is no system message now.")
        elif line.startswith("/"):
            self._note(f"There is no command {command}: {COMMANDS}.")
        elif line:
            self._ask(line)
        return True

    def _ask(self, line: str) -> None:
        before: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        asked: Message = {"role": "user", "content": line}
        prompt = self.model.chat_prompt([*before, *self.messages, asked])
        try:
            room = min(self.model.room(prompt, None), self.params.max_tokens)
        except ContextError as error:
            self._note(f"{error.what}: /reset forgets the dialog, or say less.")
            return
        text, reason = self._answer(prompt, room)
        self.messages += [asked, {"role": "assistant", "content": text}]
        if reason == "length":
            self._note(f"(cut after {room} tokens)")
        elif reason is None:
            self._note("(stopped)")

    def _answer(self, prompt: list[int], max_tokens: int) -> tuple[str, str | None]:
        """Write an answer as it grows; returns it with the reason why it ended, None where the user stopped it."""
        params = SamplingParams(
            temperature=self.params.temperature, top_p=self.params.top_p, max_tokens=max_tokens,
            seed=derive_seed(self.seed, "answer", self._asked), stop_tokens=self.model.stop_tokens,
        )  # fmt: skip
        self._asked += 1
        engine, text, completion = self.model.engine, "", None
        request = engine.submit(prompt, params)
        with _interrupts() as stopped:
            while engine.busy and not stopped.is_set():
                for event in engine.step():
                    new = event.text if text else self.model.answer_text(event.text)
                    text += event.text
                    self.answers.write(new)
                    self.answers.flush()
                    completion = event.completion
        engine.abort(request)
        self.answers.write("\n")
        self.answers.flush()
        return text, completion.finish_reason if completion else None

    def _note(self, line: str) -> None:
        self.notes.write(f"{line}\n")
        self.notes.flush()


def _typed() -> Iterator[str]:
    """Lines typed at a terminal, with editing and recall where the platform has them. Ctrl-C drops the line begun."""
    with suppress(ImportError):
        import readline  # noqa: F401 - importing it is what turns editing on
    prompt = PROMPT
    if not sys.stdout.isatty():  # answers go to a file: keep it free of prompts
        prompt = ""
    while True:
        try:
            yield input(prompt)
        except KeyboardInterrupt:
            sys.stderr.write("\n")
        except EOFError:
            sys.stderr.write("\n")
            return


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Ctrl-C sets the event instead of breaking into the middle of an engine's step."""
    pressed = threading.Event()

    def press(number: int, frame: FrameType | None) -> None:
        pressed.set()

    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
