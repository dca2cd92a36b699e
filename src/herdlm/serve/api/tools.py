"""Tools, calls and results of a chat in the dialog format, and the grammar of a call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from herdlm.generate.sampling.grammar import JSON_SPACE, Grammar
from herdlm.serve.api.chat import MAX_CALLS, ChatMessage, Function, Tool
from herdlm.serve.api.schemas import NO_ARGUMENTS, bounded
from herdlm.serve.errors import RefusedError, shown
from herdlm.tokens.chat import Message

NO_PROPERTIES = {"type": "object", "properties": {}}  # what models are told of a function without arguments


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


def answer_grammar(
    functions: Sequence[Function], *, calls: int = MAX_CALLS, must: bool = False, answer: dict[str, Any] | None = None
) -> Grammar:
    """A grammar of calls, or of an answer that is none.

    The arguments of strict functions obey their schemas; with ``must``, those of all functions do. Built-in tools are
    called as JSON too, since ``<|python_tag|>`` is not text.

    Args:
        calls: the most calls.
        must: whether the answer must be a call.
        answer: the JSON schema of an answer that is no call; None: it is text that does not look like a call.
    """
    schemas = [_call(f.name, arguments(f) if must or f.strict else {"type": "object"}) for f in functions]
    if must and calls == 1:
        return Grammar.json_schema(schemas[0] if len(schemas) == 1 else {"anyOf": schemas}, check=False)
    rules = [_rule(f"call{number}", schema) for number, schema in enumerate(schemas)]
    call = " | ".join(f"call{number}" for number in range(len(schemas)))
    called = "call" + (f' ("; " call){{0,{calls - 1}}}' if calls > 1 else "")
    start = [called]
    if not must:
        start.insert(0, "TEXT?" if answer is None else "said")
        rules.append(r"TEXT: / ?[^\s\{\[](.|\n)*/" if answer is None else _rule("said", bounded(answer)))
    return Grammar.lark("\n".join([f"start: {' | '.join(start)}", f"call: {call}", *rules]) + "\n", check=False)


def arguments(function: Function) -> dict[str, Any]:
    """The schema of a function's arguments. One that describes no properties has none."""
    found = function.parameters
    said = found.keys() - {"title", "description", "$schema"}
    return NO_ARGUMENTS if not said or (said == {"type"} and found["type"] == "object") else bounded(found)


def _rule(name: str, schema: dict[str, Any]) -> str:
    options = {"whitespace_flexible": True, "whitespace_pattern": JSON_SPACE}
    return f"{name}: %json {json.dumps(schema | {'x-guidance': options})}"


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
    return {
        "type": "function",
        "function": {"name": function.name, **described, "parameters": function.parameters or NO_PROPERTIES},
    }
