"""Jinja of task files: templates that make texts, and expressions that make values of an item's fields."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from herdlm.base.errors import InputError


def _fail(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _whole(value: Any) -> int:
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(f"{value} is not a whole number")
    return number


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.filters["fromjson"] = json.loads
    environment.filters["sub"] = lambda text, pattern, to: re.sub(pattern, to, text)
    environment.filters["split"] = lambda text, separator=None: text.split(separator)
    # Jinja's own take what is no number as 0, which would be a wrong answer's number.
    environment.filters["int"] = _whole
    environment.filters["float"] = float
    environment.filters["number"] = lambda value: f"{float(value):.10g}"
    environment.globals["fail"] = _fail
    return environment


ENVIRONMENT = _environment()


def _place(fields: Mapping[str, Any]) -> str:
    """Where an item stands, for errors."""
    return f"{fields['place']}: " if "place" in fields else ""


def _failed(where: str, fields: Mapping[str, Any], error: Exception) -> InputError:
    says = str(error).rstrip(".") or type(error).__name__
    return InputError(f"{_place(fields)}{where} fails: {says}", "Check the item's fields")


class Template:
    """A text with places for fields."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        try:
            self._template = ENVIRONMENT.from_string(text)
        except jinja2.TemplateError as error:
            raise InputError(f"{where} is not valid Jinja: {str(error).rstrip('.')}", "Correct it") from error

    def __call__(self, fields: Mapping[str, Any]) -> str:
        """The text for an item.

        Raises:
            InputError: a field is missing, or the template fails on it.
        """
        try:
            return self._template.render(fields)
        except Exception as error:  # a template may do anything that Python's values can
            raise _failed(self.where, fields, error) from error


class Expression:
    """A value computed of fields."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        try:
            self._compiled = ENVIRONMENT.compile_expression(text, undefined_to_none=False)
        except jinja2.TemplateError as error:
            raise InputError(f"{where} is not a Jinja expression: {str(error).rstrip('.')}", "Correct it") from error

    def __call__(self, fields: Mapping[str, Any]) -> Any:
        """The value for an item.

        Raises:
            InputError: a field is missing, or the expression fails on it.
        """
        try:
            value = self._compiled(**fields)
        except Exception as error:  # an expression may do anything that Python's values can
            raise _failed(self.where, fields, error) from error
        if isinstance(value, jinja2.Undefined):
            raise InputError(
                f"{_place(fields)}{self.where} is undefined: the item lacks a field", "Check the item's fields"
            )
        return value
