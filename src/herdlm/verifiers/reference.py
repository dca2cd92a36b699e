"""Reads references, which come from files of users, and names what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from herdlm.base.errors import InputError


def texts(reference: Any) -> list[str]:
    """The right answers: one text, or a list of texts of which each is right.

    Raises:
        InputError: it is neither.
    """
    made = [reference] if isinstance(reference, str) else reference
    if not isinstance(made, list) or not made or not all(isinstance(text, str) for text in made):
        raise InputError(f"reference {shown(reference)} is neither a text nor a list of texts", "Write one of them")
    return made


def part(reference: Mapping[str, Any], key: str, kind: type[dict[Any, Any]] | type[list[Any]]) -> Any:
    """The value of a key of a reference.

    Raises:
        InputError: the key is missing, or its value has another type than ``kind``.
    """
    value = reference.get(key)
    if not isinstance(value, kind):
        found = "is missing" if value is None else f"= {shown(value)} has the wrong type"
        raise InputError(f"reference: {key} {found}", "Write an object" if kind is dict else "Write a list")
    return value


def shown(value: Any) -> str:
    """A value for an error's message, cut to a line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
