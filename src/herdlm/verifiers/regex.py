"""Judges by a regular expression."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator

from herdlm.base.errors import InputError
from herdlm.verifiers.reference import shown, texts
from herdlm.verifiers.verdict import Verdict, Verifier, failed, passed


class Regex(Verifier):
    """Passes an answer that a regular expression of Python's ``re`` matches.

    Without the option ``pattern``, the reference is the pattern. With it and a group, the text of the last match's
    first group must equal the reference, or one of several.
    """

    pattern: str | None = Field(None, description="the regular expression; None: the reference is it")
    whole: bool = Field(False, description="match the whole answer, without the white space around it")
    ignore_case: bool = False
    multiline: bool = Field(False, description="^ and $ match at each line")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return pattern

    @property
    def needs_reference(self) -> bool:
        """Whether the reference is the pattern, or what its group must be."""
        return self.pattern is None or bool(re.compile(self.pattern).groups)

    def __call__(self, answer: str, reference: Any = None) -> Verdict:
        """Judge an answer; see :meth:`Verifier.__call__`."""
        pattern = self._pattern(reference)
        text = answer.strip() if self.whole else answer
        if self.whole:
            found = pattern.fullmatch(text)
        else:
            found = None
            for found in pattern.finditer(text):  # noqa: B007 - the last one is meant
                pass
        if found is None:
            return failed("no match")
        if self.pattern is None or not pattern.groups:
            return passed("match", found=found[0])
        group = (found[1] or "").strip()
        equal = group in [text.strip() for text in texts(reference)]
        return passed("equal", found=group) if equal else failed("another match", found=group)

    def _pattern(self, reference: Any) -> re.Pattern[str]:
        flags = (re.IGNORECASE if self.ignore_case else 0) | (re.MULTILINE if self.multiline else 0)
        written = reference if self.pattern is None else self.pattern
        if not isinstance(written, str):
            raise InputError(f"reference {shown(reference)} is not a regular expression", "Write one, or set pattern")
        try:
            return re.compile(written, flags)
        except re.error as error:
            raise InputError(
                f"reference {shown(written)} is not a regular expression: {error}", "Correct it"
            ) from error
