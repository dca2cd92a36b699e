"""Tools, calls and results of a chat in the dialog format, and the grammar of a call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from herdlm.generate.sampling.grammar import JSON_SPACE, Grammar
from herdlm.serve.api.chat import ChatMessage, Function, Tool
from herdlm.serve.errors import RefusedError, shown
from herdlm.tokens.chat import Message


def to_dialog(chat: Sequence[ChatMessage], tools: Sequence[Tool]) -> tuple[list[Message], list[dict[str, Any]]]:
    """Convert a chat's messages and tools to those of the dialog format.

    Raises:
        RefusedError: a tool message answers no call.
    """
    messages, called = list[Message](), set[str]()
    for index, message in enumerate(chat):
        called |= {call.id for call in message.tool_calls}
        if message.role == "tool" and message.tool_call_id not in called:
            raise RefusedError(
                f"messages.{index}: no earlier call has the id {shown(message.tool_call_id)}",
                "Give the id of a call in an assistant message's tool_calls",
                param=f"messages.{index}.tool_call_id",
                code="invalid_value",
            )
        messages.append(_message(message))
    return messages, [_definition(tool.function) for tool in tools]


def call_schema(functions: Sequence[Function]) -> dict[str, Any]:
    """The JSON schema of a call to one of ``functions``."""
    calls = [_call(function.name, function.parameters) for function in functions]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def free_grammar(functions: Sequence[Function], parallel: bool) -> Grammar:
    """A grammar of text that does not look like a call, or of calls. Arguments of strict functions obey their schemas.

    ``<|python_tag|>`` is not text, so built-in tools are called as JSON too.
    """
    options = {"whitespace_flexible": True, "whitespace_pattern": JSON_SPACE}
    free = {"type": "object"}
    rules = [
        f"call{i}: %json {json.dumps(_call(f.name, f.parameters if f.strict else free) | {'x-guidance': options})}"
        for i, f in enumerate(functions)
    ]
    call = " | ".join(f"call{i}" for i in range(len(functions)))
    more = ' ("; " call)*' if parallel else ""
    text = r"/ ?[^\s\{\[](.|\n)*/"
    return Grammar.lark(
        "\n".join([f"start: TEXT? | call{more}", f"TEXT: {text}", f"call: {call}", *rules]) + "\n", check=False
    )


def _message(message: ChatMessage) -> Message:
    # "developer" is OpenAI's newer name of "system".
    made: Message = {"role": "system" if message.role == "developer" else message.role, "content": message.text}
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.values},
            }
            for call in message.tool_calls
        ]
    return made


def _call(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "parameters": parameters},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }


def _definition(function: Function) -> dict[str, Any]:
    described = {"description": function.description} if function.description else {}
    return {"type": "function", "function": {"name": function.name, **described, "parameters": function.parameters}}
