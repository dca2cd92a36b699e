"""Makes JSON schemas end: an unsure model would add made-up keys to an open object, or digits to a number, for ever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
_PARTS = frozenset({"anyOf", "oneOf", "if", "then", "else", "not"})  # schemas of the same value
_BESIDE = frozenset({"allOf", "properties", "$ref"})
MAX_REFERENCES = 32  # that lead from one to the next
_RANGES = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")


def bounded(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema whose objects with listed properties are closed, and whose numbers have an end.

    Pydantic and other writers leave ``additionalProperties`` out where they mean the listed properties. What a schema
    says itself stays: an object with ``additionalProperties`` of true stays open. Parts of an ``allOf`` stay open, too,
    since each must allow what the others list; the whole is closed around what they list together.
    """
    made: dict[str, Any] = _bounded(schema, _Root(schema, _joined_references(schema)), "#", joined=False)
    return made


@dataclass(frozen=True, slots=True)
class _Root:
    """The whole schema, and the references to what must stay open."""

    schema: Mapping[str, Any]
    kept: frozenset[str]

    def listed(self, part: Any, depth: int = 0) -> set[str] | None:
        """The properties that a part of an ``allOf`` lists; None if it is open, or no plain object."""
        if not isinstance(part, Mapping) or depth > MAX_REFERENCES:
            return None
        if "$ref" in part:
            return self.listed(self._found(part["$ref"]), depth + 1)
        names = set(part.get("properties", {}))
        for inner in part.get("allOf", []):
            found = self.listed(inner, depth + 1)
            if found is None:
                return None
            names |= found
        lists = not {"properties", "allOf"}.isdisjoint(part)
        return names if lists and _PARTS.isdisjoint(part) and not any(key in part for key in _OPENS) else None

    def _found(self, reference: Any) -> Any:
        """What a reference into the schema names; None if it names nothing here."""
        found: Any = self.schema
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        for key in reference[2:].split("/"):
            found = found.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        return found


def _bounded(schema: Any, root: _Root, path: str, *, joined: bool) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    made = dict(schema)
    shared = joined or not _BESIDE.isdisjoint(made)  # what anyOf lists stands beside what this schema lists
    for key in _ONE:
        if isinstance(made.get(key), Mapping):
            made[key] = _bounded(made[key], root, f"{path}/{key}", joined=shared and key in _PARTS)
    for key in _LISTS:
        if isinstance(made.get(key), list):
            part_of = shared and key in _PARTS
            made[key] = [_bounded(part, root, f"{path}/{key}/{n}", joined=part_of) for n, part in enumerate(made[key])]
    for key in _NAMED:
        if isinstance(made.get(key), Mapping):
            made[key] = {
                name: _bounded(part, root, f"{path}/{key}/{name}", joined=False) for name, part in made[key].items()
            }
    closed = not joined and path not in root.kept and _PARTS.isdisjoint(schema) and "$ref" not in schema
    if isinstance(made.get("allOf"), list):
        listed = root.listed(schema) if closed else None
        if listed:
            made["properties"] = {name: {} for name in sorted(listed)} | made.get("properties", {})
        closed = bool(listed)
        several = joined or len(made["allOf"]) > 1 or "properties" in made
        made["allOf"] = [
            _bounded(part, root, f"{path}/allOf/{n}", joined=several) for n, part in enumerate(made["allOf"])
        ]
    if closed and "properties" in made and not any(key in made for key in _OPENS):
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
