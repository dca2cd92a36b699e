"""A dialog in the terminal: questions, slash commands, and the state between them."""

from __future__ import annotations

import json
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TextIO

from herdlm.base.errors import HerdError, InputError
from herdlm.base.seeds import derive_seed
from herdlm.generate.request import SamplingParams
from herdlm.serve.errors import ContextError
from herdlm.serve.terminal.client import ChatClient, ChatResult, cancel_on_ctrl_c
from herdlm.serve.terminal.sanitize import TerminalSanitizer, sanitize
from herdlm.tokens.chat import Message

COMMANDS = {
    "/system": "/system TEXT sets the system message; without TEXT it is removed",
    "/set": "/set NAME=VALUE ... changes sampling options, as in /set temperature=0.7 seed=5; alone it shows them",
    "/model": "/model NAME switches to another model (a folder, or one of the server's); alone it lists them",
    "/regenerate": "/regenerate samples the last answer again",
    "/save": "/save FILE writes the dialog, as JSON if FILE ends in .json, else as text",
    "/clear": "/clear deletes the dialog and keeps the system message",
    "/help": "/help shows this list",
    "/quit": "/quit or Ctrl-D exits",
}
ALIASES = {"/reset": "/clear", "/exit": "/quit"}

# The options of /set and the types of their values.
SETTINGS: dict[str, type] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "max_tokens": int,
    "min_tokens": int,
    "repetition_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "seed": int,
    "stop": str,
}


class Conversation:
    """A dialog with one chat client at a time.

    Args:
        params: sampling options. Answer number i uses a seed derived from ``params.seed`` and i.
        answers, notes: streams for answers, and for everything else. Answers to a terminal are sanitized; others are
            written unchanged.
        verbose: follow each answer with its token count and rate.

    Attributes:
        failed: number of questions without an answer.
    """

    def __init__(
        self,
        client: ChatClient,
        params: SamplingParams,
        *,
        system: str | None = None,
        answers: TextIO,
        notes: TextIO,
        verbose: bool = False,
    ) -> None:
        self.client, self.params, self.system = client, params, system
        self.messages: list[Message] = []
        self.answers, self.notes, self.verbose = answers, notes, verbose
        self.failed = 0
        self._answered = 0  # since the seed was set
        self._sanitized = answers.isatty()

    def handle(self, entry: str) -> bool:
        """Run a command or answer a question; false if the entry asks to exit."""
        entry = entry.strip()
        command, _, rest = entry.partition(" ")
        if not entry.startswith("/"):
            if entry:
                self._ask(entry)
            return True
        command = ALIASES.get(command, command)
        if command == "/quit":
            return False
        if command not in COMMANDS:
            self.note(f"Unknown command {command.splitlines()[0]}. The commands are {' '.join(COMMANDS)}.")
            return True
        try:
            getattr(self, f"_{command[1:]}")(rest.strip())
        except HerdError as error:
            self.note(str(error))
        return True

    def note(self, line: str) -> None:
        """Write a line that is not an answer. It may quote a server or a file name, so it is always sanitized."""
        self.notes.write(f"{sanitize(line)}\n")
        self.notes.flush()

    def _system(self, text: str) -> None:
        self.system = text or None
        self.note("The system message is set." if text else "The system message is removed.")

    def _clear(self, text: str) -> None:
        self.messages.clear()
        self.note("The dialog is deleted.")

    def _help(self, text: str) -> None:
        for line in COMMANDS.values():
            self.note(line)

    def _model(self, name: str) -> None:
        if not name:
            for known in self.client.names():
                self.note(f"{'*' if known == self.client.name else ' '} {known}")
            return
        self.client.choose(name)
        self.note(f"Talking to {self.client.name}. The dialog continues.")

    def _set(self, text: str) -> None:
        changes: dict[str, Any] = {}
        for part in text.split():
            name, equals, value = part.partition("=")
            if name not in SETTINGS or not equals:
                raise InputError(f"/set cannot use {part}", f"Write NAME=VALUE, with a NAME of {', '.join(SETTINGS)}")
            changes[name] = _parse_value(name, value)
        self.params = replace(self.params, **changes)
        if "seed" in changes:
            self._answered = 0
        summary = {field.name: getattr(self.params, field.name) for field in fields(self.params)}
        self.note(" ".join(f"{name}={_format_value(summary[name])}" for name in SETTINGS))

    def _regenerate(self, text: str) -> None:
        if not self.messages:
            raise InputError("there is no answer to sample again", "Ask a question first")
        question = self.messages[-2]["content"]
        before = self.messages[-2:]
        del self.messages[-2:]
        if not self._ask(question):
            self.messages += before

    def _save(self, name: str) -> None:
        if not name:
            raise InputError("/save needs a file name", "Write /save dialog.json")
        path = Path(name).expanduser()
        dialog: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        dialog += self.messages
        if path.suffix == ".json":
            sampling = {name: getattr(self.params, name) for name in SETTINGS}
            content = json.dumps(
                {"model": self.client.name, "sampling": sampling, "messages": dialog}, indent=2, ensure_ascii=False
            )
        else:
            content = "\n\n".join(f"{message['role']}:\n{message['content']}" for message in dialog)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(f"{content}\n")
        except FileExistsError as error:
            raise InputError(f"{path} exists", "Give another name") from error
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}", "Give another name") from error
        self.note(f"Saved {len(self.messages)} messages to {path}.")

    def _ask(self, question: str) -> bool:
        """Answer a question; false if there is no answer, which leaves the dialog unchanged."""
        before: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        asked: Message = {"role": "user", "content": question}
        params = replace(self.params, seed=derive_seed(self.params.seed, "answer", self._answered))
        self._answered += 1
        writer = _Writer(self.answers, sanitized=self._sanitized)
        started = time.perf_counter()
        try:
            with cancel_on_ctrl_c() as cancellation:
                result = self.client.answer([*before, *self.messages, asked], params, writer.write, cancellation)
        except HerdError as error:
            writer.end()
            self.failed += 1
            self.note(f"{error.what}. Use /clear, or write less." if isinstance(error, ContextError) else str(error))
            return False
        writer.end(always=True)
        self.messages += [asked, {"role": "assistant", "content": result.text}]
        summary = _summary(result, started, writer.first, counted=self.verbose)
        if summary:
            self.note(f"({summary})")
        return True


class _Writer:
    """Writes an answer piece by piece and records the time of the first piece."""

    def __init__(self, target: TextIO, *, sanitized: bool) -> None:
        self.target = target
        self.cleaner = TerminalSanitizer() if sanitized else None
        self.first: float | None = None

    def write(self, piece: str) -> None:
        if piece and self.first is None:
            self.first = time.perf_counter()
        self.target.write(self.cleaner.feed(piece) if self.cleaner else piece)
        self.target.flush()

    def end(self, *, always: bool = False) -> None:
        if self.cleaner:
            self.target.write(self.cleaner.end())
        if always or self.first is not None:
            self.target.write("\n")
        self.target.flush()


def _summary(result: ChatResult, started: float, first: float | None, *, counted: bool) -> str:
    tokens, parts = result.tokens, []
    if result.reason is None:
        parts.append("stopped")
    elif result.reason == "length":
        parts.append("cut" if tokens is None else f"cut after {tokens} tokens")
    elif counted and tokens is not None:
        parts.append(f"{tokens} tokens")
    if counted and first is not None:
        seconds = time.perf_counter() - first
        if tokens is not None and tokens > 1 and seconds > 0:
            parts.append(f"{(tokens - 1) / seconds:.1f} tokens/s")
        parts.append(f"first after {first - started:.2f} s")
    return ", ".join(parts)


def _parse_value(name: str, text: str) -> Any:
    if name == "stop":
        # An empty value removes it. Values end at spaces, so a newline and a space are written \\n and \\s.
        return (text.replace("\\n", "\n").replace("\\s", " "),) if text else ()
    try:
        return SETTINGS[name](text)
    except ValueError as error:
        kind = "a whole number" if SETTINGS[name] is int else "a number"
        raise InputError(f"{name} = {text!r} is not {kind}", f"Write /set {name}=NUMBER") from error


def _format_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "".join(value).replace("\n", "\\n").replace(" ", "\\s")
    return f"{value:g}" if isinstance(value, float) else str(value)
