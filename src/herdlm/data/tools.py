"""Tools and calls of tools, in OpenAI's form and as JSON text."""

from __future__ import annotations

from typing import Any

from herdlm.data.row import Row, kind_of, parse_json


def json_value(row: Row, key: str, value: Any) -> Any:
    """The value of a key that may be JSON in a text.

    Raises:
        RowError: the text is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise row.error(key, f"its text is not JSON: {error}", "Correct it") from error


def tools_of(row: Row) -> list[dict[str, Any]]:
    """The tools of a row: ``tools``, or OpenAI's old ``functions``.

    Raises:
        RowError: they are not a list of objects with names.
    """
    key = row.first("tools", "functions")
    if key is None or (value := row.get(key)) == "":
        return []
    listed = json_value(row, key, value)
    if not isinstance(listed, list):
        raise row.error(
            key, f"it is {kind_of(listed)}, not a list of tools", 'Write [{"name": ..., "parameters": ...}]'
        )
    found = []
    for index, tool in enumerate(listed):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise row.error(f"{key}[{index}]", "it is not a tool with a name", 'Write {"name": ..., "parameters": ...}')
        found.append({"type": "function", "function": function})
    return found


def tool_calls(row: Row, key: str, item: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls of an assistant's message: ``tool_calls``, or OpenAI's old ``function_call``."""
    if "tool_calls" in item:
        calls = json_value(row, f"{key}.tool_calls", item["tool_calls"])
        if not isinstance(calls, list):
            raise row.error(f"{key}.tool_calls", f"it is {kind_of(calls)}, not a list", "Write a list of calls")
        return [tool_call(row, f"{key}.tool_calls[{index}]", call) for index, call in enumerate(calls)]
    if "function_call" in item:
        return [tool_call(row, f"{key}.function_call", json_value(row, f"{key}.function_call", item["function_call"]))]
    return []


def tool_call(row: Row, key: str, call: Any) -> dict[str, Any]:
    """One call with its arguments as an object.

    Raises:
        RowError: it has no name, or its arguments are not an object.
    """
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise row.error(key, "it is not a call of a tool with a name", 'Write {"name": ..., "arguments": {...}}')
    arguments = function.get("arguments")
    if arguments is None or arguments == "":
        arguments = {}
    arguments = json_value(row, f"{key}.arguments", arguments)
    if not isinstance(arguments, dict):
        raise row.error(f"{key}.arguments", f"it is {kind_of(arguments)}, not an object", 'Write {"name": value}')
    found: dict[str, Any] = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    if isinstance(call.get("id"), str):
        found = {"id": call["id"], **found}
    return found
