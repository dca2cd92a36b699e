"""Compares a function call with possible answers, by the rules of the Berkeley Function-Calling Leaderboard for Python.

A parameter's possible values are a list, in which "" means that it may be left out. Types are compared exactly,
except that an integer does for a float. Texts are compared without case, spaces and ``,./-_*^``, those in lists and
objects, too. The rules are the checker's, including its leniences; each is noted where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from herdlm.verifiers.calls import Call

TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "number": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "object": dict,
    "any": str,
}
LEFT_OUT = ""
IGNORED = re.compile(r"[ ,./\-_*^]")


def mismatch(call: Call, function: Mapping[str, Any], possible: Mapping[str, Sequence[Any]]) -> str | None:
    """Why a call of the right name is not a possible answer; None if it is one.

    Args:
        function: its JSON description, with ``parameters``.
        possible: the possible values of each parameter.
    """
    described = function["parameters"]
    properties, given = described.get("properties", {}), call.arguments
    if any(name not in given for name in described.get("required", ())):
        return "lacks a parameter"
    for name, value in given.items():
        if name not in properties or name not in possible:
            return "has an unknown parameter"
        if wrong := _wrong_value(value, properties[name], possible[name]):
            return wrong
    if any(name not in given and LEFT_OUT not in values for name, values in possible.items()):
        return "lacks a parameter"
    return None


def _wrong_value(value: Any, described: Mapping[str, Any], possible: Sequence[Any]) -> str | None:
    """Why a value is not a possible one; None if it is."""
    name = described.get("type", "any")
    kind: Any = TYPES.get(name, str)
    inner = TYPES.get(described.get("items", {}).get("type", "")) if kind is list else None
    if kind is float and type(value) is int:
        value = float(value)
    if name == "tuple" and isinstance(value, tuple):
        value = list(value)
    meant = _type_of(possible)
    if type(value) is kind:
        if inner and not _elements_fit(value, inner, possible):
            return "has a wrong type"
        variable = meant is not None and meant is not kind
    elif meant is not None and type(value) is meant:  # the name of a variable, where possible answers are names
        variable = True
    else:
        return "has a wrong type"
    if variable:
        right = value in possible
    elif kind is dict:
        right = any(_object_fits(value, one) for one in possible if one != LEFT_OUT)
    elif kind is list and inner is dict:
        right = any(_objects_fit(value, one) for one in possible)
    elif kind is str:
        right = _plain(value) in [_plain(one) for one in possible if isinstance(one, str)]
    elif kind is list:
        right = [_plain(item) for item in value] in [[_plain(item) for item in one] for one in possible]
    else:
        right = value in possible
    return None if right else "has a wrong value"


def _type_of(possible: Sequence[Any]) -> type | None:
    """The type of the first value that does not mean "left out"."""
    return next((type(value) for value in possible if value != LEFT_OUT), None)


def _elements_fit(value: list[Any], inner: type, possible: Sequence[Any]) -> bool:
    """Whether the elements have the declared type or that of a possible answer. A possible "" lets all types pass."""
    return any(
        not isinstance(one, list) or all(type(item) in (inner, _type_of(one)) for item in value) for one in possible
    )


def _object_fits(value: Any, possible: Any) -> bool:
    """Whether an object has possible values only, and all that may not be left out. Inner objects must be equal."""
    if not isinstance(value, dict) or not isinstance(possible, dict):
        return False
    return all(
        key in possible and _plain(inner) in [_plain(one) for one in possible[key]] for key, inner in value.items()
    ) and all(key in value or LEFT_OUT in values for key, values in possible.items())


def _objects_fit(value: list[Any], possible: Sequence[Any]) -> bool:
    return len(value) == len(possible) and all(map(_object_fits, value, possible))


def _plain(value: Any) -> Any:
    """A text as it is compared; other values as they are."""
    return IGNORED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value
