"""Makes JSON schemas end: an unsure model would add made-up keys to an open object, or digits to a number, for ever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LARGEST_INTEGER = 2**53 - 1  # the largest that JSON readers agree on
LARGEST_NUMBER = 1e15
SMALLEST_PART = 1e-9
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}

# Keywords whose values are schemas, lists of schemas, and schemas by name.
_ONE = ("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then")
_LISTS = ("anyOf", "oneOf", "prefixItems", "items")
_NAMED = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
_OPENS = ("additionalProperties", "unevaluatedProperties", "patternProperties")
_RANGES = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")


def bounded(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema whose objects with listed properties are closed, and whose numbers have an end.

    Pydantic and other writers leave ``additionalProperties`` out where they mean the listed properties. What a schema
    says itself stays: an object with ``additionalProperties`` of true stays open. Parts of an ``allOf`` stay open, too,
    since each must allow what the others list.
    """
    kept = _joined_references(schema)
    made: dict[str, Any] = _bounded(schema, kept, "#", joined=False)
    return made


def _bounded(schema: Any, kept: frozenset[str], path: str, *, joined: bool) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    made = dict(schema)
    for key in _ONE:
        if isinstance(made.get(key), Mapping):
            made[key] = _bounded(made[key], kept, f"{path}/{key}", joined=False)
    for key in _LISTS:
        if isinstance(made.get(key), list):
            made[key] = [_bounded(part, kept, f"{path}/{key}/{n}", joined=joined) for n, part in enumerate(made[key])]
    for key in _NAMED:
        if isinstance(made.get(key), Mapping):
            made[key] = {
                name: _bounded(part, kept, f"{path}/{key}/{name}", joined=False) for name, part in made[key].items()
            }
    if isinstance(made.get("allOf"), list):
        several = joined or len(made["allOf"]) > 1 or "properties" in made
        made["allOf"] = [
            _bounded(part, kept, f"{path}/allOf/{n}", joined=several) for n, part in enumerate(made["allOf"])
        ]
        joined = True
    if "properties" in made and not joined and path not in kept and not any(key in made for key in _OPENS):
        made["additionalProperties"] = False
    return made if {"enum", "const"} & made.keys() else made | _limits(made)


def _limits(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Limits of a number that its schema leaves out."""
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    if "number" not in kinds and "integer" not in kinds:
        return {}
    largest: float = LARGEST_NUMBER if "number" in kinds else LARGEST_INTEGER
    limits: dict[str, Any] = {}
    for keys, end in zip(_RANGES, (-largest, largest), strict=True):
        given = [schema[key] for key in keys if isinstance(schema.get(key), int | float)]
        if not given and not _outside(schema, end):
            limits[keys[0]] = end
    if "number" in kinds and "multipleOf" not in schema:
        limits["multipleOf"] = SMALLEST_PART
    return limits


def _outside(schema: Mapping[str, Any], end: float) -> bool:
    """Whether a given bound lies beyond the end that would be added, so that nothing would be allowed."""
    found = [schema[key] for keys in _RANGES for key in keys if isinstance(schema.get(key), int | float)]
    return any(value * (1 if end > 0 else -1) > abs(end) for value in found)


def _joined_references(schema: Any) -> frozenset[str]:
    """The references in lists of ``allOf`` with several parts: what they name must stay open."""
    found: set[str] = set()
    if isinstance(schema, Mapping):
        parts = schema.get("allOf")
        if isinstance(parts, list) and (len(parts) > 1 or "properties" in schema):
            found |= {part["$ref"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("$ref"), str)}
        for value in schema.values():
            found |= _joined_references(value)
    elif isinstance(schema, list):
        for value in schema:
            found |= _joined_references(value)
    return frozenset(found)
