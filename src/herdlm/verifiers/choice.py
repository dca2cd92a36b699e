"""Judges by the letter of a choice."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from herdlm.base.errors import InputError
from herdlm.verifiers.boxed import last_boxed
from herdlm.verifiers.reference import shown
from herdlm.verifiers.verdict import Verdict, Verifier, failed, passed

LETTERS = "ABCDEFGHIJ"


def choice_letter(answer: str, letters: str = LETTERS) -> str | None:
    r"""The letter that an answer chooses, or None.

    The first of these that the answer has decides: ``\boxed{B}``; the last "answer is B", "Answer: (B)" or "option B";
    a letter alone, or one that begins the answer before a punctuation mark; the last "(B)"; the last letter that
    stands alone. The words "A" and "I" are no choices.
    """
    one = f"([{re.escape(letters)}])"
    boxed = last_boxed(answer)
    text = answer if boxed is None else re.sub(r"\\(?:text|mathrm|textbf)\s*\{([^{}]*)\}", r"\1", boxed)
    alone = re.fullmatch(rf"[\W_]*{one}[\W_]*", text, re.IGNORECASE)
    if alone:
        return _of(alone[1], letters)
    end = r"(?![\w'\u2019])"
    word = r"(?!(?<=[AI])[ \t]+[a-z])"  # "B because" is a choice, unlike "A cow"
    named = r"\b(?i:answer|choice|option)\b(?:[^\w\n]|\b(?i:is|was|would be|should be|choice|option|letter)\b)*"
    patterns = (
        rf"{named}{one}{end}",
        rf"{named}(?i:{one})(?=[)*.]*\s*(?:\n|\Z))",  # "answer: b" at the end of a line
        rf"\A[\W_]*{one}(?=[).:,\]*]|\s*\n)",
        rf"\({one}\)",
        rf"(?<![\w'\u2019]){one}{end}{word}",
    )
    for pattern in patterns:
        found = re.findall(pattern, text)
        if found:
            return _of(found[-1], letters)
    return None


def _of(letter: str, letters: str) -> str | None:
    return next((one for one in letters if one.lower() == letter.lower()), None)


class Choice(Verifier):
    """Compares the letter that the answer chooses with the reference's."""

    letters: str = Field(LETTERS, min_length=2, description="the letters to choose from")

    def __call__(self, answer: str, reference: Any = None) -> Verdict:
        """Judge an answer; see :meth:`Verifier.__call__`."""
        wanted = str(reference).strip().strip("().")
        expected = _of(wanted, self.letters) if isinstance(reference, str | int) else None
        if expected is None:
            raise InputError(
                f"reference {shown(reference)} is none of {self.letters}", "Write a letter, or set letters"
            )
        found = choice_letter(answer, self.letters)
        if found is None:
            return failed("no choice", expected=expected)
        return (passed if found == expected else failed)(
            "equal" if found == expected else "another choice", found=found, expected=expected
        )
