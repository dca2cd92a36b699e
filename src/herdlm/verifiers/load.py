"""Finds verifiers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from herdlm.base.errors import InputError
from herdlm.base.own_parts import PATTERN
from herdlm.base.recipe import parse
from herdlm.verifiers.call import FunctionCall
from herdlm.verifiers.choice import Choice
from herdlm.verifiers.code import Code
from herdlm.verifiers.ifeval import IFEval
from herdlm.verifiers.json_schema import Json
from herdlm.verifiers.language import Language
from herdlm.verifiers.length import Length
from herdlm.verifiers.number import Number
from herdlm.verifiers.own import Own
from herdlm.verifiers.refusal import Refusal
from herdlm.verifiers.regex import Regex
from herdlm.verifiers.text import Exact, Text
from herdlm.verifiers.verdict import Verifier

VERIFIERS: dict[str, type[Verifier]] = {
    "number": Number,
    "choice": Choice,
    "exact": Exact,
    "text": Text,
    "regex": Regex,
    "json": Json,
    "ifeval": IFEval,
    "code": Code,
    "call": FunctionCall,
    "language": Language,
    "length": Length,
    "refusal": Refusal,
}
"""The verifiers by name."""

IN_FILES = {"tests": "code"}
"""What prompts in files (docs/data.md) call a verifier, where the name differs."""


def load_verifier(name: str, options: Mapping[str, Any] | None = None) -> Verifier:
    """The verifier with a name, or the user's own function ``module:function``, with its options.

    Raises:
        InputError: there is no such verifier, or it does not take an option or its value.
    """
    if PATTERN.fullmatch(name):
        return Own(name, options or {})
    kind = VERIFIERS.get(IN_FILES.get(name, name))
    if kind is None:
        raise InputError(f"verifier {name!r} is unknown", f"Use {', '.join(VERIFIERS)}, or module:function")
    return parse(kind, dict(options or {}), f"verifier {name}")
