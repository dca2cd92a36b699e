"""Tools, calls and results in a Llama 3.1 prompt, and the grammar of a required call.

The system message describes functions as JSON. The model's earlier calls appear as it wrote them, their results as
messages of the role "ipython". ``Environment: ipython`` in the system message enables ``<|python_tag|>``; ``Tools:``
lists the built-in tools other than the interpreter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from herdlm.generate.sampling.grammar import JSON_SPACE, Grammar
from herdlm.serve.api.chat import ChatBody, ChatMessage, Function, ToolCall
from herdlm.serve.api.tool_calls import BUILT_IN, CODE_INTERPRETER
from herdlm.serve.errors import RefusedError, shown
from herdlm.tokens.chat import Message

HOW_TO_CALL = (
    "You can call the functions below. To call one, answer with JSON alone, in the form "
    '{"name": NAME, "parameters": {ARGUMENT: VALUE}}, and with values, not variables.'
)


def to_dialog(body: ChatBody) -> list[Message]:
    """Convert a chat's messages and tools to the dialog format.

    Raises:
        RefusedError: a tool message answers no call.
    """
    functions = [tool.function for tool in body.tools] if body.tool_choice != "none" else []
    messages, called = list[Message](), set[str]()
    for index, message in enumerate(body.messages):
        called |= {call.id for call in message.tool_calls}
        if message.role == "tool" and message.tool_call_id not in called:
            raise RefusedError(
                f"messages.{index}: no earlier call has the id {shown(message.tool_call_id)}",
                "Give the id of a call in an assistant message's tool_calls",
                param=f"messages.{index}.tool_call_id",
                code="invalid_value",
            )
        messages.append(_message(message))
    if not functions:
        return messages
    definitions = tools_text(functions)
    if messages[0]["role"] == "system":
        before = messages[0]["content"]
        return [{"role": "system", "content": f"{definitions}\n\n{before}" if before else definitions}, *messages[1:]]
    return [{"role": "system", "content": definitions}, *messages]


def tools_text(functions: Sequence[Function]) -> str:
    """The system message's description of tools."""
    built_in = [function.name for function in functions if function.name in BUILT_IN]
    parts = []
    if built_in:
        listed = [name for name in built_in if name != CODE_INTERPRETER]
        parts.append("Environment: ipython" + (f"\nTools: {', '.join(listed)}" if listed else ""))
    custom = [function for function in functions if function.name not in BUILT_IN]
    if custom:
        parts.append(HOW_TO_CALL)
        parts += [json.dumps(_definition(function), indent=4, ensure_ascii=False) for function in custom]
    return "\n\n".join(parts)


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
    return Grammar.lark("\n".join([f"start: TEXT? | call{more}", f"TEXT: {text}", f"call: {call}", *rules]) + "\n")


def _message(message: ChatMessage) -> Message:
    if message.role == "tool":
        return {"role": "ipython", "content": message.text}
    # "developer" is OpenAI's newer name of "system".
    role = "system" if message.role == "developer" else message.role
    if not message.tool_calls:
        return {"role": role, "content": message.text}
    if len(message.tool_calls) == 1 and message.tool_calls[0].function.name in BUILT_IN and not message.text:
        return {"role": role, "content": _built_in_call(message.tool_calls[0]), "code": True}
    calls = "; ".join(_custom_call(call) for call in message.tool_calls)
    return {"role": role, "content": f"{message.text}\n\n{calls}" if message.text else calls}


def _call(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "parameters": parameters},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }


def _custom_call(call: ToolCall) -> str:
    return json.dumps({"name": call.function.name, "parameters": call.function.values}, ensure_ascii=False)


def _built_in_call(call: ToolCall) -> str:
    name, values = call.function.name, call.function.values
    if name == CODE_INTERPRETER and isinstance(values.get("code"), str):
        return str(values["code"])
    arguments = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    return f"{name}.call({arguments})"


def _definition(function: Function) -> dict[str, Any]:
    described = {"description": function.description} if function.description else {}
    return {"type": "function", "function": {"name": function.name, **described, "parameters": function.parameters}}
