"""``herdlm chat``: a dialog at the terminal with a model in this process or on a server.

Without a terminal it answers the lines of standard input and writes only answers to standard output.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from herdlm.base.errors import HerdError, InputError
from herdlm.generate.request import SamplingParams
from herdlm.serve.terminal.client import ChatClient, LocalModel
from herdlm.serve.terminal.conversation import COMMANDS, Conversation
from herdlm.serve.terminal.line_editor import history_file, read_entries
from herdlm.serve.terminal.remote import RemoteModels


def chat(
    model: Path | str | None = None,
    *,
    url: str | None = None,
    key: str | None = None,
    system: str | None = None,
    temperature: float = 0.7,
    top_p: float = 1.0,
    max_tokens: int = 512,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
) -> None:
    """Chat with a model. Answers go to standard output, everything else to standard error.

    Args:
        model: a model folder or a run, which means its flagship; with ``url`` the name of a model of the server.
        url: the base URL of a server of the OpenAI API.
        key: the server's API key.
        system: the system message.
        max_tokens: maximum length of one answer, within the context.
        seed: answer number i of the session uses a seed derived from this and i.

    Raises:
        InputError: the model is unusable, or an option is out of range.
        HerdError: without a terminal, some lines had no answer.
    """
    # Checks the options before the model is loaded.
    params = SamplingParams(temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)
    client: ChatClient
    if url is not None:
        client = RemoteModels(url, key=key, name=None if model is None else str(model))
    elif model is None:
        raise InputError("there is no model to chat with", "Name a model folder or a run, or give a server with --url")
    else:
        client = LocalModel(Path(model), device=device, dtype=dtype)
    at_terminal = sys.stdin.isatty()
    talk = Conversation(client, params, system=system, answers=sys.stdout, notes=sys.stderr, verbose=at_terminal)
    if at_terminal:
        talk.note(f"Talking to {client.name}. /help lists the commands; Ctrl-C stops an answer, Ctrl-D exits.")
        entries: Iterable[str] = read_entries(list(COMMANDS), talk.note, history_file())
    else:
        entries = _joined(sys.stdin)
    for entry in entries:
        if not talk.handle(entry):
            break
    if talk.failed and not at_terminal:
        raise HerdError(f"{talk.failed} questions had no answer", "See the lines above")


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Entries read from a pipe: lines, joined where one ends in a backslash."""
    pending = ""
    for line in lines:
        text = line.rstrip("\n")
        if text.endswith("\\"):
            pending += f"{text[:-1]}\n"
            continue
        yield pending + text
        pending = ""
    if pending:
        yield pending
