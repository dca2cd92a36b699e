"""Judges by IFEval's checkable instructions (Zhou et al. 2023, arXiv:2311.07911), strictly and loosely.

Verdicts equal those of the published checker as the lm-evaluation-harness has it, except where that one draws at
random: it draws a missing parameter, and a letter where the data have another character (2 of the 541 prompts). We
refuse the first and count the character.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from herdlm.base.errors import InputError
from herdlm.verifiers.ifeval_instructions import INSTRUCTIONS
from herdlm.verifiers.reference import part, shown
from herdlm.verifiers.verdict import Verdict, Verifier


class IFEval(Verifier):
    """Passes an answer that keeps all instructions; the score is the share that it keeps.

    The reference is an object with ``instruction_id_list`` and, for each id, its parameters in ``kwargs``, as in the
    data set. The details have the verdict on each instruction, ``strict`` and ``loose``. Loose verdicts try the
    answer without its first line, last line, both, and each without stars, so that an introduction or bold type does
    no harm.
    """

    reference_keys: ClassVar = ("instruction_id_list", "kwargs")

    loose: bool = Field(False, description="pass and score by the loose verdicts")

    def __call__(self, answer: str, reference: Any = None) -> Verdict:
        """Judge an answer; see :meth:`Verifier.__call__`."""
        instructions = _instructions(reference)
        strict = [_keeps(answer, name, options) for name, options in instructions]
        loose = [
            kept or any(_keeps(form, name, options) for form in _forms(answer)[1:])
            for kept, (name, options) in zip(strict, instructions, strict=True)
        ]
        kept = loose if self.loose else strict
        broken = [name for one, (name, _) in zip(kept, instructions, strict=True) if not one]
        reason = f"breaks {broken[0]}" if broken else "keeps all instructions"
        details = {"strict": strict, "loose": loose}
        return Verdict(not broken, sum(kept) / len(kept), reason, details)


def _forms(answer: str) -> list[str]:
    """The eight forms of an answer that the loose verdict tries."""
    lines = answer.split("\n")
    shorter = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    forms = [answer, *shorter]
    return forms + [form.replace("*", "") for form in forms]


def _keeps(answer: str, name: str, options: Mapping[str, Any]) -> bool:
    try:
        return bool(answer.strip()) and INSTRUCTIONS[name](answer, **options)
    except (ValueError, TypeError, AttributeError, re.error) as error:
        raise InputError(f"reference: kwargs of {name} = {shown(dict(options))}: {error}", "Correct them") from error


def _instructions(reference: Any) -> list[tuple[str, dict[str, Any]]]:
    """The instructions of a reference with their parameters, without those that are null."""
    if not isinstance(reference, Mapping):
        raise InputError(
            f"reference {shown(reference)} has no instructions", "Write instruction_id_list and kwargs, as IFEval does"
        )
    names, parameters = (part(reference, key, list) for key in IFEval.reference_keys)
    if not names or len(names) != len(parameters) or not all(isinstance(given, dict) for given in parameters):
        raise InputError("reference: kwargs has not an object for each id", "Write one; {} if an id takes none")
    return [(name, _parameters(name, given)) for name, given in zip(names, parameters, strict=True)]


def _parameters(name: Any, given: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(name, str) or name not in INSTRUCTIONS:
        raise InputError(f"reference: instruction {shown(name)} is unknown", f"Known are {', '.join(INSTRUCTIONS)}")
    takes = [
        option.name
        for option in inspect.signature(INSTRUCTIONS[name]).parameters.values()
        if option.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    options = {key: value for key, value in given.items() if value is not None}
    if missing := [key for key in takes if key not in options]:
        raise InputError(f"reference: kwargs of {name} lack {', '.join(missing)}", "Add it")
    if unknown := [key for key in options if key not in takes]:
        raise InputError(
            f"reference: {name} takes no {', '.join(unknown)}", f"It takes {', '.join(takes) or 'nothing'}"
        )
    return options
