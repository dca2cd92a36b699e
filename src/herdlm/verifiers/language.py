"""Judges by the language of an answer."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from herdlm.base.errors import InputError
from herdlm.verifiers.blocks import FENCE
from herdlm.verifiers.detect import detect_language, languages
from herdlm.verifiers.reference import shown
from herdlm.verifiers.verdict import Verdict, Verifier, failed, passed


class Language(Verifier):
    """Passes an answer in the language of the option, or else of the reference. Fenced blocks do not count."""

    language: str | None = Field(None, description="its code, such as en or zh; None: the reference is it")

    @property
    def needs_reference(self) -> bool:
        """Whether the reference is the language."""
        return self.language is None

    def __call__(self, answer: str, reference: Any = None) -> Verdict:
        """Judge an answer; see :meth:`Verifier.__call__`."""
        wanted = reference if self.language is None else self.language
        code = wanted.strip().lower() if isinstance(wanted, str) else ""
        if not any(code in (known, known.partition("-")[0]) for known in languages()):
            raise InputError(f"language {shown(wanted)} is unknown", f"Known are {', '.join(languages())}")
        found = detect_language(FENCE.sub("", answer))
        if found is None:
            return failed("no language found", expected=code)
        same = code in (found, found.partition("-")[0])
        return (passed if same else failed)("equal" if same else "another language", found=found, expected=code)
