"""Tools in dialogs of a chat template that knows none: described in the system message, called and answered in text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from herdlm.tokens.chat import Message, text_of

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
            made[0] = (
                _joined(made[0], f"{text}\n\n", before=True)
                if text_of(made[0]).strip()
                else {**made[0], "content": text}
            )
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
        made = _joined(made, f"\n\n{text}", before=False) if text_of(message) else {**made, "content": text}
        del made["tool_calls"]
    return made


def _joined(message: Message, text: str, *, before: bool) -> Message:
    """The message with a text before or behind its content, whose special parts stay special."""
    content: Any = message["content"]
    if isinstance(content, str):
        content = text + content.strip() if before else content + text
    else:
        part = {"type": "text", "text": text}
        content = [part, *content] if before else [*content, part]
    return {**message, "content": content}


def _call(function: dict[str, Any]) -> str:
    values = function["arguments"]
    written = values if isinstance(values, str) else json.dumps(values, ensure_ascii=False)
    return f'{{"name": {json.dumps(function["name"], ensure_ascii=False)}, "parameters": {written}}}'
