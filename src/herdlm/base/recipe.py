"""Reads recipes: TOML with ``extends``, ``--set`` overrides, strict schemas, and errors that name the key.

Each package keeps the schema of its section as a :class:`Section` beside the code that reads it; :mod:`herdlm.recipe`
puts the sections together.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from herdlm.base.errors import InputError
from herdlm.base.json_files import MAX_DEPTH, parse_toml, read_bounded

RECIPE_BYTES = 4 * 2**20
MAX_EXTENDS = 50


class Section(BaseModel):
    """A part of a recipe. Unknown keys are errors, and values never change after reading.

    ``false`` unsets a key or section that may be None, and empties a list that is empty by default, so that a recipe
    can drop one that it inherits.

    A section whose keys were renamed lists them, old key to new key, and :func:`parse` refuses an old key by giving the
    new one. A new key that contains a dot is a full key, for what moved to another section::

        class TrainConfig(Section):
            renamed: ClassVar = {"learning_rate": "peak_lr", "teacher": "herd.models.NAME.distill.teacher"}
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    renamed: ClassVar[dict[str, str]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        for old, new in cls.renamed.items():
            assert old not in cls.model_fields, f"{cls.__name__}.{old} is renamed, yet still a key"
            assert "." in new or new in cls.model_fields, f"{cls.__name__}.{old} is renamed to {new}, which is no key"

    @model_validator(mode="before")
    @classmethod
    def _false_unsets(cls, tables: Any) -> Any:
        if not isinstance(tables, dict):
            return tables
        return {key: cls._unset(key) if value is False else value for key, value in tables.items()}

    @classmethod
    def _unset(cls, key: str) -> Any:
        """What ``false`` stands for as the value of a key: None, the empty list, or itself."""
        field = next((field for name, field in cls.model_fields.items() if (field.alias or name) == key), None)
        types = get_args(field.annotation) if field else ()
        if NoneType in types and bool not in types:
            return None
        return () if field and field.default == () else False


EXPECTED = {
    **dict.fromkeys(("model_type", "dict_type"), "input should be a table"),
    **dict.fromkeys(("tuple_type", "list_type"), "input should be a list"),
}
"""Types of pydantic's errors whose own text speaks of Python's types, and a text that speaks of TOML's."""

Schema = TypeVar("Schema", bound=BaseModel)


Localize = Callable[[dict[str, Any], Path], None]


def read_toml(path: Path, *, localize: Localize | None = None) -> dict[str, Any]:
    """A recipe's tables, merged over those it ``extends`` (a path relative to the recipe, or a list of paths).

    ``localize`` may rewrite each file's own tables, given its folder, to resolve relative paths.

    Raises:
        InputError: a file is missing, is not TOML, or extends itself.
    """
    return _read(path, (), localize)


def _read(path: Path, above: tuple[Path, ...], localize: Localize | None) -> dict[str, Any]:
    if path.resolve() in above:
        raise InputError(f"{path} extends itself: {' -> '.join(p.name for p in above)}", "Remove one of these extends")
    if not path.is_file():
        nearby = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], n=1)
        hint = f"Did you mean {path.parent / nearby[0]}?" if nearby else "Check the path"
        raise InputError(f"recipe {path} does not exist", hint)
    if len(above) >= MAX_EXTENDS:
        raise InputError(f"recipe {path} is extended over {MAX_EXTENDS} files", "Extend fewer")
    try:
        tables = parse_toml(read_bounded(path, "Correct it", most=RECIPE_BYTES).decode())
    except ValueError as error:
        raise InputError(f"recipe {path} is not valid TOML: {error}", "Correct that line") from error
    bases = tables.pop("extends", [])
    if not isinstance(bases, str) and not (isinstance(bases, list) and all(isinstance(b, str) for b in bases)):
        raise InputError(f"recipe {path}: extends = {_shown(bases)} is not a path", "Write a path, or a list of paths")
    if localize:
        localize(tables, path.parent)
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = merge(merged, _read(path.parent / base, (*above, path.resolve()), localize))
    return merge(merged, tables)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` merged over ``below``: tables merge key by key, other values are replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def apply_overrides(tables: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Apply ``--set a.b=value`` overrides to a recipe's tables. Values are TOML; anything else is a string.

    Raises:
        InputError: an override is not of the form key=value.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip() or key.count(".") > MAX_DEPTH:
            raise InputError(
                f"--set {override[:200]} is not of the form key=value",
                "Write, for example, --set pretrain.train.peak_lr=3e-4",
            )
        try:
            value = parse_toml(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        except ValueError as error:
            raise InputError(f"--set {override[:200]}: {error}", "Give another value") from error
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        tables = merge(tables, value)
    return tables


def parse(schema: type[Schema], tables: dict[str, Any], source: str) -> Schema:
    """Check ``tables`` against ``schema``; errors name ``source``, the file.

    Raises:
        InputError: with file, key, value and what is allowed; for an unknown key, the new or the nearest one.
    """
    try:
        return schema.model_validate(tables)
    except ValidationError as error:
        problems = sorted(error.errors(include_url=False), key=lambda problem: _new_key(schema, problem) is None)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        what, remedy = _describe(schema, problems[0])
        raise InputError(f"{source}: {what}{more}", remedy) from error


def _describe(schema: type[BaseModel], problem: ErrorDetails) -> tuple[str, str]:
    """What is wrong, and the remedy."""
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)[:200]
    if new := _new_key(schema, problem):
        return f"key {key} was renamed to {new}", f"Write {new} in its place"
    if problem["type"] == "extra_forbidden":
        fields = _section_at(schema, path[:-1]).model_fields
        known = sorted(field.alias or name for name, field in fields.items())
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        nearest = ".".join([*path[:-1], near[0]]) if near else ""
        return f"unknown key {key}", f"Did you mean {nearest}?" if near else f"Allowed here: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"key {key} is missing", "Add it"
    if problem["type"] == "value_error":
        return f"{key or 'recipe'}: {problem['ctx']['error']!s}", ""
    expected = EXPECTED.get(problem["type"]) or problem["msg"][:1].lower() + problem["msg"][1:]
    return f"key {key} = {_shown(problem['input'])}: {expected}", ""


def _shown(value: Any, most: int = 200) -> str:
    """A wrong value for an error message, cut short."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _new_key(schema: type[BaseModel], problem: ErrorDetails) -> str | None:
    """The full key that replaced an unknown one, or None if it was never a key."""
    if problem["type"] != "extra_forbidden":
        return None
    *path, key = map(str, problem["loc"])
    new: str | None = getattr(_section_at(schema, path), "renamed", {}).get(key)
    return new if new is None or "." in new else ".".join([*path, new])


def _section_at(schema: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """The section at a dotted path, through lists and tables that are keyed by name."""
    current = schema
    for part in path:
        models = _models_in(current.model_fields[part].annotation) if part in current.model_fields else [current]
        current = models[0] if models else current
    return current


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in getattr(annotation, "__args__", ()) for m in _models_in(argument)]
