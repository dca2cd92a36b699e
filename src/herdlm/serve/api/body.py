"""Base of request bodies: what would change the answer is obeyed or refused by name, and hints are accepted.

Real clients send fields that describe the caller or advise the server, such as ``user`` or ``prompt_cache_key``. They
have no effect on the answer, so they have none here; the log names each once. Fields that no API known here has are
treated the same, unless they look like a misspelled parameter. ``None`` means "not given" for every parameter.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, model_validator
from pydantic_core import PydanticCustomError

from herdlm.serve.api.unsupported import UNSUPPORTED
from herdlm.serve.errors import misspelled, shown

log = logging.getLogger(__name__)
MAX_TOLD = 1000  # names that the log tells, so that a client cannot fill memory with made-up ones
MAX_NAME = 64
_told: set[str] = set()


def _valid_unicode(text: str) -> str:
    # JSON can hold half of a surrogate pair, which UTF-8 cannot.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"not valid Unicode at character {error.start}") from error
    return text


class _FirstOnly(FailFast):
    """Pydantic's own cannot be hashed, which a type in a union must be."""

    def __hash__(self) -> int:
        return hash(type(self))


FIRST_ONLY = _FirstOnly()
"""In an annotation of a list: its first wrong entry ends the validation, where pydantic would make an error of each."""

Text = Annotated[str, AfterValidator(_valid_unicode)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


Neutral = Mapping[str, tuple[Any, ...]]


class Body(BaseModel):
    """A body that refuses what it cannot obey by name.

    ``hints`` are fields that are accepted with any value. ``neutral`` lists, for fields that this server does not
    support, the values without effect; an empty list, object or text is always one.
    """

    model_config = ConfigDict(strict=True, extra="allow", json_schema_extra={"additionalProperties": True})

    hints: ClassVar[frozenset[str]] = frozenset()
    neutral: ClassVar[Neutral] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, body: Any) -> Any:
        return {k: v for k, v in body.items() if v is not None} if isinstance(body, dict) else body

    @model_validator(mode="after")
    def _refuse_unsupported(self) -> Body:
        for field, value in (self.model_extra or {}).items():
            if field in self.hints:
                continue
            neutral = self.neutral.get(field, UNSUPPORTED.get(field))
            if neutral is None:
                known = [*type(self).model_fields, *self.neutral]
                if meant := misspelled(field, known):
                    raise PydanticCustomError(
                        "unknown_parameter",
                        "unknown parameter {name}. Did you mean {meant}?",
                        {"field": field, "name": shown(field), "meant": meant},
                    )
                _tell(field)
            elif value not in ([], {}, "") and not any(type(value) is type(n) and value == n for n in neutral):
                raise unsupported_parameter(field, value)
        return self


def _tell(field: str) -> None:
    """Log once that a field has no effect."""
    if field not in _told and len(_told) < MAX_TOLD and len(field) <= MAX_NAME:
        _told.add(field)
        log.warning("requests have the unknown field %s, which has no effect here", shown(field))


def unsupported_parameter(field: str, value: Any, remedy: str = "Drop it") -> PydanticCustomError:
    """The error for a parameter of the API that this server does not support."""
    return PydanticCustomError(
        "unsupported_parameter",
        "{name} = {value} is not supported by this server. {remedy}",
        {"field": field, "name": field, "value": shown(value), "remedy": remedy},
    )


def invalid_parameter(field: str, problem: str) -> PydanticCustomError:
    """The error for a parameter that contradicts another."""
    return PydanticCustomError("invalid_parameter", "{problem}", {"field": field, "problem": problem})
