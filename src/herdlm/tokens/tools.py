"""Tools in dialogs of a chat template that knows none: described in the system message, called and answered in text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from herdlm.tokens.chat import Message

HOW_TO_CALL = (
    "You can call the functions below. To call one, answer with JSON alone, in the form "
    '{"name": NAME, "parameters": {ARGUMENT: VALUE}}, and with values, not variables.'
)


def without_tools(
    messages: Sequence[Message], tools: Sequence[dict[str, Any]], *, as_text: bool = True
) -> tuple[list[Message], Sequence[dict[str, Any]]]:
    """The dialog with its tools described in the system message.

    Args:
        as_text: whether calls and results become text, too; results are the user's messages.
    """
    made = [_as_text(message) for message in messages] if as_text else list(messages)
    if tools:
        text = "\n\n".join([HOW_TO_CALL, *(json.dumps(tool, indent=4, ensure_ascii=False) for tool in tools)])
        if made and made[0]["role"] == "system":
            before = _content(made[0]).strip()
            made[0] = {**made[0], "content": f"{text}\n\n{before}" if before else text}
        else:
            made.insert(0, {"role": "system", "content": text})
    return made, ()


def _as_text(message: Message) -> Message:
    role = {"tool": "user", "ipython": "user", "developer": "system"}.get(message["role"], message["role"])
    calls = message.get("tool_calls")
    if role == message["role"] and not calls:
        return message
    made: Message = {**message, "role": role}
    if calls:
        text = "; ".join(_call(call["function"]) for call in calls)
        made["content"] = f"{_content(message)}\n\n{text}" if _content(message) else text
        del made["tool_calls"]
    return made


def _content(message: Message) -> str:
    content: Any = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _call(function: dict[str, Any]) -> str:
    values = function["arguments"]
    written = values if isinstance(values, str) else json.dumps(values, ensure_ascii=False)
    return f'{{"name": {json.dumps(function["name"], ensure_ascii=False)}, "parameters": {written}}}'
