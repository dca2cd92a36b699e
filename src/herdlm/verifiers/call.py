"""Judges function calls, as the Berkeley Function-Calling Leaderboard does by syntax tree (Patil et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from herdlm.base.errors import InputError
from herdlm.verifiers.call_match import mismatch
from herdlm.verifiers.calls import Call, parse_calls
from herdlm.verifiers.reference import part, shown
from herdlm.verifiers.verdict import Verdict, Verifier, failed, passed


class FunctionCall(Verifier):
    """Passes an answer whose calls are the possible ones, in any order.

    The reference is an object with ``function``, a list of descriptions, and ``ground_truth``, a list with an object
    per call: ``{name: {parameter: [possible values]}}``, as in the leaderboard's files. If ``ground_truth`` is empty,
    none of the functions helps, and an answer passes that calls none.
    """

    reference_keys: ClassVar = ("function", "ground_truth")

    underscores: bool = Field(
        False, description='accept "a_b" as the name of the function "a.b", for APIs without dots'
    )

    def __call__(self, answer: str, reference: Any = None) -> Verdict:
        """Judge an answer; see :meth:`Verifier.__call__`."""
        functions, expected = _reference(reference)
        calls = parse_calls(answer)
        if not expected:
            return failed("calls a function") if calls else passed("calls no function")
        if not calls:
            return failed("calls no function")
        if len(calls) != len(expected):
            return failed("another number of calls", found=len(calls), expected=len(expected))
        # Each expected call takes the first call that matches it and is not yet taken, as in the published checker.
        for name, possible in expected:
            wrong = [self._compare(call, name, functions, possible) for call in calls]
            if None not in wrong:
                return failed((len(calls) == 1 and wrong[0]) or "no call matches", expected=name)
            calls.pop(wrong.index(None))
        return passed("calls as expected")

    def _compare(
        self, call: Call, name: str, functions: Mapping[str, Mapping[str, Any]], possible: Mapping[str, list[Any]]
    ) -> str | None:
        if call.name != name and not (self.underscores and call.name == name.replace(".", "_")):
            return "calls another function"
        return mismatch(call, functions[name], possible)


def _reference(reference: Any) -> tuple[dict[str, dict[str, Any]], list[tuple[str, dict[str, list[Any]]]]]:
    """The functions by name, and the expected calls."""
    if not isinstance(reference, Mapping):
        raise InputError(f"reference {shown(reference)} has no calls", "Write function and ground_truth")
    functions = {}
    for described in part(reference, "function", list):
        if not isinstance(described, dict) or not isinstance(described.get("name"), str):
            raise InputError(f"reference: function {shown(described)} has no name", "Write name and parameters")
        part(described, "parameters", dict)
        functions[described["name"]] = described
    expected = []
    for call in part(reference, "ground_truth", list):
        name, possible = next(iter(call.items())) if isinstance(call, dict) and len(call) == 1 else ("", None)
        if not isinstance(possible, dict) or not all(isinstance(values, list) for values in possible.values()):
            raise InputError(
                f"reference: ground_truth {shown(call)} is not {{name: {{parameter: [values]}}}}", "Write it so"
            )
        if name not in functions:
            raise InputError(f"reference: ground_truth calls {name}, which function does not describe", "Add it")
        expected.append((name, possible))
    return functions, expected
