"""Judges by a JSON Schema."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from pydantic import Field

from herdlm.base.errors import InputError
from herdlm.verifiers.blocks import last_block
from herdlm.verifiers.extra import not_installed
from herdlm.verifiers.reference import shown
from herdlm.verifiers.verdict import Verdict, Verifier, failed, passed

NO_JSON = object()


class Json(Verifier):
    """Passes an answer that is JSON, alone or in its last fenced block, and fits the schema.

    The schema is the option, or else the reference. With both, the reference is the value that the JSON must equal.
    Schemas are of the draft that they name, by default 2020-12; nothing is fetched from the net.
    """

    schema_: dict[str, Any] | None = Field(None, alias="schema", description="the schema; None: the reference is it")
    formats: bool = Field(True, description="check formats such as date and email, too")
    only: bool = Field(False, description="refuse fences: the whole answer must be JSON")

    @property
    def needs_reference(self) -> bool:
        """Whether the reference is the schema."""
        return self.schema_ is None

    def __call__(self, answer: str, reference: Any = None) -> Verdict:
        """Judge an answer; see :meth:`Verifier.__call__`."""
        schema = reference if self.schema_ is None else self.schema_
        if not isinstance(schema, dict | bool):
            raise InputError(f"reference {shown(reference)} is not a JSON schema", "Write an object, or set schema")
        validator = _validator(json.dumps(schema, sort_keys=True), self.formats)
        value = self._read(answer)
        if value is NO_JSON:
            return failed("not JSON")
        try:
            error = next(validator.iter_errors(value), None)
        except RecursionError:
            return failed("too deep")
        except Exception as problem:  # an unresolvable reference, whose type is private to the library
            raise InputError(f"the JSON schema cannot be used: {problem}", "Correct it") from problem
        if error is not None:
            return failed("does not fit the schema", at=error.json_path, why=error.message[:200])
        if self.schema_ is not None and reference is not None and not _same(value, reference):
            return failed("another value")
        return passed("fits the schema")

    def _read(self, answer: str) -> Any:
        block = None if self.only else last_block(answer)
        for text in (answer, block):
            if text is not None:
                try:
                    return json.loads(text, parse_constant=_refuse)
                except (ValueError, RecursionError):
                    continue
        return NO_JSON


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal. Unlike in Python, true is not 1."""
    return json.dumps(_canonical(a), sort_keys=True) == json.dumps(_canonical(b), sort_keys=True)


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_canonical(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@lru_cache(maxsize=256)
def _validator(schema: str, formats: bool) -> Any:
    try:
        import jsonschema
        from referencing import Registry
    except ImportError as error:
        raise not_installed("judging JSON by a schema", error) from error

    value = json.loads(schema)
    kind = jsonschema.validators.validator_for(value, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(value)
    except jsonschema.SchemaError as error:
        raise InputError(
            f"the JSON schema is wrong at {error.json_path}: {error.message[:200]}", "Correct it"
        ) from error
    registry: Registry[Any] = Registry()  # an empty registry resolves no address, so nothing is fetched
    return kind(value, registry=registry, format_checker=kind.FORMAT_CHECKER if formats else None)
