"""Reads function calls from answers: Python's syntax, or JSON in the forms that chat models write."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from herdlm.verifiers.blocks import last_block

TOOL_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
SEPARATORS = " \t\r\n;,"
MARKS = ("<|python_tag|>", "[TOOL_CALLS]")  # before the calls of Llama 3.1 and Mistral
LONGEST = 100_000  # characters: Python's parser needs memory in proportion
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the function ``name`` with its keyword arguments."""

    name: str
    arguments: dict[str, Any]


def parse_calls(answer: str) -> list[Call]:
    """The calls that an answer consists of; none if it is, or contains, anything else.

    Read are ``[f(a=1), g.h(b="x")]``, also without brackets; ``{"name": ..., "arguments": {...}}`` (or "parameters")
    alone, in a list or one after the other; OpenAI's ``{"type": "function", "function": {...}}``; all these in a
    fenced block or after ``<|python_tag|>`` or ``[TOOL_CALLS]``; and JSON in ``<tool_call>`` tags, beside which text
    may stand. Nothing is evaluated except arithmetic with numbers.
    """
    if len(answer) > LONGEST:
        return []
    tagged = TOOL_CALL.findall(answer)
    if tagged:
        read = [_from_json(text) for text in tagged]
        return [call for calls in read for call in calls or ()] if all(read) else []
    text = answer.strip()
    for mark in MARKS:
        text = text.removeprefix(mark).strip()
    block = last_block(text)
    for form in (text, block):
        if form is not None and (calls := _from_json(form) or _from_python(form)):
            return calls
    return []


def _from_json(text: str) -> list[Call] | None:
    """Calls from JSON values, one after the other; None if there is anything else."""
    values, rest, decoder = [], text.strip(SEPARATORS), json.JSONDecoder()
    while rest:
        try:
            value, end = decoder.raw_decode(rest)
        except (ValueError, RecursionError):
            return None
        values += value if isinstance(value, list) else [value]
        rest = rest[end:].lstrip(SEPARATORS)
    calls = [_call_of(value) for value in values]
    return None if None in calls else [call for call in calls if call]


def _call_of(value: Any) -> Call | None:
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("function"), dict):
        value = value["function"]
    name = value.get("name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    return Call(name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None


def _from_python(text: str) -> list[Call] | None:
    """Calls in Python's syntax, one or several, in a list or not; None if there is anything else."""
    text = text.strip("`\n ")
    text = f"{'' if text.startswith('[') else '['}{text}{'' if text.endswith(']') else ']'}"
    try:
        body = ast.parse(text, mode="eval").body
        if not isinstance(body, ast.List):
            return None
        return [_call(element) for element in body.elts]
    except (SyntaxError, ValueError, ArithmeticError, TypeError, RecursionError, MemoryError):
        return None


def _call(node: ast.expr) -> Call:
    """A call with its keyword arguments. Positional ones are left out, since without the function they have no name."""
    if not isinstance(node, ast.Call):
        raise TypeError("not a call")
    return Call(_name(node.func), {keyword.arg or "**": _value(keyword.value) for keyword in node.keywords})


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise TypeError("not a function's name")


def _value(node: ast.expr) -> Any:
    """A literal's value. Variables, and calls without keywords, are given as text."""
    made: Any
    match node:
        case ast.Constant(value=value):
            made = "..." if value is Ellipsis else value
        case ast.List(elts=elements):
            made = [_value(element) for element in elements]
        case ast.Tuple(elts=elements):
            made = tuple(_value(element) for element in elements)
        case ast.Dict(keys=keys, values=values):
            made = {_value(key): _value(value) for key, value in zip(keys, values, strict=True) if key}
        case ast.Name(id=name):
            made = name
        case ast.Call(keywords=[]) | ast.Subscript():
            made = ast.unparse(node)
        case ast.Call():
            call = _call(node)
            made = {call.name: call.arguments}
        case _:
            made = _number(node)
    return made


def _number(node: ast.expr) -> Any:
    """The value of arithmetic with numbers, whose powers are limited."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _number(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        left, right = _number(node.left), _number(node.right)
        if isinstance(node.op, ast.Pow) and (abs(right) > 64 or abs(left) > 1e9):
            raise ValueError("the power is too large")
        return ARITHMETIC[type(node.op)](left, right)
    raise TypeError("not arithmetic with numbers")
