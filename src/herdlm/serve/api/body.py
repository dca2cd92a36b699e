"""Base of request bodies. The server obeys a parameter or refuses the request by its name; it ignores none.

``None`` means "not given" for every known parameter, as in OpenAI's clients. ``neutral`` lists values without effect,
such as ``store`` of false, that parameters may have although this server does not support them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, model_validator
from pydantic_core import PydanticCustomError

from herdlm.serve.errors import nearest, shown


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
    """A body that refuses unknown and unsupported parameters by name."""

    model_config = ConfigDict(strict=True, extra="allow", json_schema_extra={"additionalProperties": False})

    neutral: ClassVar[Neutral] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, body: Any) -> Any:
        return {k: v for k, v in body.items() if v is not None} if isinstance(body, dict) else body

    @model_validator(mode="after")
    def _refuse_unsupported(self) -> Body:
        for field, value in (self.model_extra or {}).items():
            if field not in self.neutral:
                known = [*type(self).model_fields, *self.neutral]
                raise PydanticCustomError(
                    "unknown_parameter",
                    "unknown parameter {name}. {remedy}",
                    {"field": field, "name": shown(field), "remedy": nearest(field, known)},
                )
            if not any(type(value) is type(neutral) and value == neutral for neutral in self.neutral[field]):
                raise unsupported_parameter(field, value)
        return self


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
