"""Reads entries at the terminal: several lines, editing, and a history file that only the user can read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from herdlm.base.errors import InputError

PROMPT, CONTINUED = "> ", ". "


def history_file() -> Path:
    """The history file, below XDG_STATE_HOME or ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "herdlm" / "chat_history"


def read_entries(commands: Sequence[str], note: Callable[[str], None], history: Path | None = None) -> Iterator[str]:
    """Read entries until Ctrl-D. Enter ends one; Alt-Enter, or a backslash before Enter, starts a new line.

    Args:
        commands: completed by Tab.
        history: the file of earlier entries.

    Raises:
        InputError: prompt_toolkit is not installed.
    """
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory, InMemoryHistory
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
        from prompt_toolkit.output import create_output
    except ModuleNotFoundError as error:
        raise InputError(
            f"a chat at a terminal needs the package {error.name}", "pip install 'herdlm[serve]', or pipe lines in"
        ) from error

    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    kept = private_file(history) if history else None
    if history and not kept:
        note(f"The history is not saved: {history} cannot be written.")
    session: PromptSession[str] = PromptSession(
        PROMPT,
        multiline=True,
        prompt_continuation=CONTINUED,
        key_bindings=bindings,
        history=FileHistory(str(kept)) if kept else InMemoryHistory(),
        completer=WordCompleter(list(commands), sentence=True),
        complete_while_typing=False,
        # If answers go to a file, prompts must not.
        output=create_output(sys.stdout if sys.stdout.isatty() else sys.stderr),
    )
    while True:
        try:
            yield session.prompt()
        except KeyboardInterrupt:  # drops the current entry
            continue
        except EOFError:
            return


def private_file(path: Path) -> Path | None:
    """Create ``path`` and its folders if missing, readable by the owner only; returns None if that fails."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        return path
    return None
