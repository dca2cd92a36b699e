"""Judges by the length of an answer."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from herdlm.base.errors import InputError
from herdlm.verifiers.english import count_words, sentences
from herdlm.verifiers.reference import shown
from herdlm.verifiers.verdict import Verdict, Verifier, failed, passed


class Length(Verifier):
    """Passes an answer that is neither too short nor too long.

    The limits are the options, or else the reference: a number that it must have exactly, or ``{"min": M, "max": N}``.
    """

    unit: Literal["words", "characters", "sentences", "lines", "paragraphs"] = "words"
    min: int | None = Field(None, ge=0)
    max: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min = {self.min} is above max = {self.max}")
        return self

    @property
    def needs_reference(self) -> bool:
        """Whether the reference has the limits."""
        return self.min is None and self.max is None

    def __call__(self, answer: str, reference: Any = None) -> Verdict:
        """Judge an answer; see :meth:`Verifier.__call__`."""
        least, most = (self.min, self.max) if not self.needs_reference else _limits(reference)
        length = self._count(answer)
        if least is not None and length < least:
            return failed("too short", length=length)
        if most is not None and length > most:
            return failed("too long", length=length)
        return passed("within the limits", length=length)

    def _count(self, answer: str) -> int:
        match self.unit:
            case "words":
                return count_words(answer)
            case "characters":
                return len(answer)
            case "sentences":
                return len(sentences(answer))
            case "lines":
                return len([line for line in answer.splitlines() if line.strip()])
            case "paragraphs":
                return len([part for part in re.split(r"\n\s*\n", answer) if part.strip()])


def _limits(reference: Any) -> tuple[int | None, int | None]:
    numbers = (reference, reference)
    if isinstance(reference, dict) and reference and reference.keys() <= {"min", "max"}:
        numbers = (reference.get("min"), reference.get("max"))
    if any(isinstance(number, bool) or not isinstance(number, int | None) for number in numbers) or numbers == (
        None,
        None,
    ):
        raise InputError(
            f"reference {shown(reference)} is no limit", 'Write a number, {"min": M, "max": N}, or options'
        )
    return numbers
