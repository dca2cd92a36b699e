"""Dialogs that are one text with a mark before each turn: Glaive's "USER:" and Guanaco's "### Human:"."""

from __future__ import annotations

import json
import re
from typing import Any

from herdlm.data.formats.form import Form, Record, has
from herdlm.data.messages import assistant, system, text, user
from herdlm.data.row import Row
from herdlm.data.tools import tool_call

GLAIVE = re.compile(r"(?:^|\n+)(USER|ASSISTANT|FUNCTION RESPONSE): ?")
GUANACO = re.compile(r"(?:^|\n*)### (Human|Assistant): ?")
CALL = re.compile(r"""\{"name": "([^"]+)", "arguments": '(.*)'\}""", re.DOTALL)  # the arguments' JSON in single quotes


def _glaive(row: Row) -> list[Record]:
    chat = text(row, "chat", row.get("chat"))
    parts = GLAIVE.split(chat)
    if parts[0].strip() or len(parts) < 3:
        raise row.error("chat", "it does not begin with USER: or ASSISTANT:", "Write USER: ... ASSISTANT: ...")
    found: list[dict[str, Any]] = []
    for who, part in zip(parts[1::2], parts[2::2], strict=True):
        said = part.replace("<|endoftext|>", "").strip()
        if who == "USER":
            found.append(user(said))
        elif who == "FUNCTION RESPONSE":
            found.append({"role": "tool", "content": said})
        else:
            words, sign, call = said.partition("<functioncall>")
            found.append(assistant(words.strip()) | ({"tool_calls": [_call(row, call.strip())]} if sign else {}))
    intro, tools = _tools(text(row, "system", row.get("system") or ""))
    record: Record = {"messages": [*([system(intro)] if intro else []), *found]}
    return [record | ({"tools": tools} if tools else {})]


def _call(row: Row, written: str) -> dict[str, Any]:
    match = CALL.fullmatch(written)
    if match:
        return tool_call(row, "chat", {"name": match[1], "arguments": match[2]})
    try:
        return tool_call(row, "chat", json.loads(written))
    except ValueError as error:
        raise row.error("chat", f"a function call is not JSON: {written[:60]!r}", "Correct it") from error


def _tools(prompt: str) -> tuple[str, list[dict[str, Any]]]:
    """The words of a system prompt, and the functions that it lists as JSON after them."""
    words, _, rest = prompt.removeprefix("SYSTEM:").strip().partition("\n{")
    rest, tools = f"{{{rest}" if rest else "", []
    while rest.startswith("{"):
        try:
            function, end = json.JSONDecoder().raw_decode(rest)
        except (ValueError, RecursionError):
            return prompt.removeprefix("SYSTEM:").strip(), []
        if not isinstance(function.get("name"), str):
            return prompt.removeprefix("SYSTEM:").strip(), []
        tools.append({"type": "function", "function": function})
        rest = rest[end:].lstrip()
    return (words.strip(), tools) if tools else (prompt.removeprefix("SYSTEM:").strip(), [])


def _guanaco(row: Row) -> list[Record]:
    parts = GUANACO.split(text(row, "text", row.get("text")))
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return [{"messages": [user(said.strip()) if who == "Human" else assistant(said.strip()) for who, said in turns]}]


CHAT_TEXT = Form("text with USER: and ASSISTANT: (Glaive)", ("system", "chat"), has("chat"), {"dialogs": _glaive})
HUMAN_TEXT = Form(
    "text with ### Human: (Guanaco)",
    ("text",),
    lambda row: str(row.value.get("text")).lstrip().startswith("### Human:"),
    {"dialogs": _guanaco},
)
