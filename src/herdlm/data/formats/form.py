"""What a form of rows is, and what several of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from herdlm.data.messages import Messages, assistant, messages, prompt_messages, system, text, user
from herdlm.data.row import Row, kind_of
from herdlm.data.tools import json_value, tools_of

Kind = Literal["dialogs", "preferences", "thumbs", "prompts", "text"]
Record = dict[str, Any]
Make = Callable[[Row], list[Record]]

SYSTEM = ("system", "system_prompt", "system_message")
QUESTIONS = ("prompt", "messages", "conversations", "conversation", "instruction", "question", "query", "problem")
KEPT = ("task", "source", "rating", "chosen_source", "rejected_source")  # columns that herdlm itself writes


@dataclass(frozen=True, slots=True)
class Form:
    """A form of rows.

    Attributes:
        keys: the columns that show it, as a user would write them.
        fits: whether a row has it.
        makes: what it gives, by kind; the first kind is its own.
        refusal: why rows of this form cannot be used, if they cannot.
    """

    name: str
    keys: tuple[str, ...]
    fits: Callable[[Row], bool]
    makes: Mapping[Kind, Make] = field(default_factory=dict)
    refusal: str = ""


def has(*keys: str) -> Callable[[Row], bool]:
    """Whether a row has all these columns."""
    return lambda row: all(key in row for key in keys)


def with_system(row: Row, found: Messages) -> Messages:
    """The messages after the system prompt of the row, if it has one."""
    key = row.first(*SYSTEM)
    if key is None:
        return found
    content = text(row, key, row.get(key))
    if not content.strip() or (found and found[0]["role"] == "system"):
        return found
    return [system(content), *found]


def history(row: Row) -> Messages:
    """Alpaca's earlier turns: a list of [user, assistant]."""
    if "history" not in row:
        return []
    pairs = json_value(row, "history", row.get("history") or [])
    if not isinstance(pairs, list):
        raise row.error("history", f"it is {kind_of(pairs)}, not a list of turns", "Write [[user, assistant], ...]")
    found = []
    for index, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            raise row.error(f"history[{index}]", "it is not a pair of texts", "Write [user, assistant]")
        found += [
            user(text(row, f"history[{index}][0]", pair[0])),
            assistant(text(row, f"history[{index}][1]", pair[1])),
        ]
    return found


def request(row: Row, key: str) -> Messages:
    """What the assistant is asked, from the column ``key``, with the row's system prompt and history."""
    value = row.get(key)
    if key == "instruction":
        more = row.first("input", "context")
        parts = [text(row, key, value), text(row, more, row.get(more)) if more else ""]
        asked = [user("\n\n".join(part for part in parts if part))]
    elif key in ("messages", "conversations", "conversation"):
        asked = chat(row, key)
    else:
        asked = prompt_messages(row, key, value)
    return with_system(row, [*history(row), *asked])


def chat(row: Row, key: str) -> Messages:
    """A dialog: messages, a list of texts in turn (LIMA, UltraChat), or of {"input", "output"} (Capybara)."""
    value = json_value(row, key, row.get(key))
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return [assistant(said) if index % 2 else user(said) for index, said in enumerate(value)]
    if isinstance(value, list) and value and all(isinstance(item, dict) and "input" in item for item in value):
        found = []
        for index, item in enumerate(value):
            place = f"{key}[{index}]"
            found += [user(text(row, f"{place}.input", item["input"]))]
            found += [assistant(text(row, f"{place}.output", item.get("output") or ""))]
        return found
    return messages(row, key, value)


def extras(row: Row) -> Record:
    """Tools, and the columns that herdlm itself writes beside messages."""
    kept = {key: row.get(key) for key in KEPT if key in row and isinstance(row.value[key], str) and row.value[key]}
    tools = tools_of(row)
    return {"tools": tools, **kept} if tools else kept
