"""One row of a user's file, which knows where it stands, and the errors that name that place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError

DEEPEST = 300  # objects and lists inside one another; a tree of replies takes two for each


class RowError(InputError):
    """A row that cannot be read. Its message names file, line (or row) and key."""

    def __init__(self, path: Path, place: str, key: str, problem: str, remedy: str) -> None:
        self.path, self.place, self.key, self.problem = path, place, key, problem
        super().__init__(f"{path}, {place}{f', key {key}' if key else ''}: {problem}", remedy)


@dataclass(slots=True)
class Row:
    """A JSON object, a line of CSV or a row of Parquet.

    Attributes:
        place: "line 3", or "row 3" where a file has no lines.
        value: the columns, in lower case where no two names differ in case only.
        seen: the names of the columns as they stand in the file.
        used: the columns that the conversion has read.
        notes: what the conversion repaired.
        useless: why the conversion made nothing of it, if it did not.
    """

    path: Path
    place: str
    value: dict[str, Any]
    seen: tuple[str, ...]
    used: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    useless: str = ""

    def __contains__(self, key: str) -> bool:
        return self.value.get(key) is not None

    def get(self, key: str) -> Any:
        """A column's value, which counts as read, or None."""
        self.used.add(key)
        return self.value.get(key)

    def first(self, *keys: str) -> str | None:
        """The first of these columns that has a value."""
        return next((key for key in keys if key in self), None)

    def where(self) -> str:
        """The file and the line."""
        return f"{self.path}, {self.place}"

    def error(self, key: str, problem: str, remedy: str) -> RowError:
        """An error about one key of this row."""
        return RowError(self.path, self.place, key, problem, remedy)


def make_row(path: Path, place: str, value: Any, rename: Mapping[str, str]) -> Row | RowError:
    """A row with its columns renamed: ``rename`` gives a column's name in the file by the name that herdlm knows."""
    if not isinstance(value, dict):
        return RowError(path, place, "", f"{kind_of(value)}, not an object", 'Write {"messages": [...]} or the like')
    seen = tuple(value)
    if rename:
        by_name = {old: new for new, old in rename.items()}
        renamed = {new: value[old] for new, old in rename.items() if old in value}
        value = {key: item for key, item in value.items() if key not in by_name and key not in renamed} | renamed
    if len({key.lower() for key in value}) == len(value):
        value = {key.lower(): item for key, item in value.items()}
    return Row(path, place, value, seen)


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    names: list[tuple[type, str]] = [(bool, "a boolean"), (int, "a number"), (float, "a number"), (str, "text")]
    names += [(list, "a list"), (dict, "an object")]
    return next((name for kind, name in names if isinstance(value, kind)), f"a {type(value).__name__}")


def parse_json(text: str) -> Any:
    """JSON without the liberties of Python's parser: NaN, infinite numbers, repeated keys and deep nesting are errors.

    Raises:
        ValueError: what is wrong.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(value):
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    return value


def bad_text(value: Any) -> tuple[str, str] | None:
    """The key of a text that cannot be tokenized, and why: half of a surrogate pair, or a NUL character."""
    return next(_bad_texts(value, ""), None)


def _bad_texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            yield key, "the text holds half of a surrogate pair, which is no character"
        if "\0" in value:
            yield key, "the text holds a NUL character"
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _bad_texts(name, key)
            yield from _bad_texts(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _bad_texts(item, f"{key}[{index}]")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


Rename = Mapping[str, str]
IsRow = Callable[[Row], bool]
