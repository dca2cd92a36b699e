"""Runs solutions in the sandbox: on inputs, to learn what they return, and against tests."""

from __future__ import annotations

import json
from collections.abc import Sequence

from herdlm.sandbox.sandbox import Sandbox, TestJob

# Follows a solution. Prints, for each call, the literal of what it returns, or null if it fails or returns something
# that is no literal, changes its arguments, or returns another value the second time.
OUTPUTS = r"""

import ast as _ast, copy as _copy, json as _json, sys as _sys
_stdin, _out = _json.load(_sys.stdin), []
_real, _sys.stdout = _sys.stdout, type("Quiet", (), {"write": lambda self, text: None, "flush": lambda self: None})()
for _call in _stdin["calls"]:
    try:
        _arguments = _ast.literal_eval(f"({_call},)" if _call.strip() else "()")
        _given = _copy.deepcopy(_arguments)
        _first = globals()[_stdin["entry"]](*_copy.deepcopy(_given))
        _second = globals()[_stdin["entry"]](*_copy.deepcopy(_given))
        _text = repr(_first)
        _same = _first == _second and repr(_second) == _text
        _out.append(_text if _same and len(_text) < 300 and _ast.literal_eval(_text) == _first else None)
    except BaseException:
        _out.append(None)
_real.write("\n" + _json.dumps(_out))
_real.flush()
"""


def outputs(sandbox: Sandbox, code: str, entry: str, calls: Sequence[str]) -> list[str | None]:
    """What a function returns to each call, as a literal; None where it fails, is random, or returns no literal."""
    ran = sandbox.run(code + OUTPUTS, stdin=json.dumps({"entry": entry, "calls": list(calls)}))
    if ran.status != "ok":
        return [None] * len(calls)
    try:
        found: list[str | None] = json.loads(ran.stdout.rsplit("\n", 1)[-1])
    except ValueError:
        return [None] * len(calls)
    return found if len(found) == len(calls) else [None] * len(calls)


def failure(sandbox: Sandbox, code: str, tests: Sequence[str], entry: str) -> str:
    """Why code does not pass tests; "" if it does."""
    result = next(iter(sandbox.map([TestJob(code, "\n".join(tests), entry_point=entry)])))
    return "" if getattr(result, "passed", False) else str(getattr(result, "reason", "no verdict"))


def asserts(entry: str, calls: Sequence[str], results: Sequence[str | None]) -> list[str]:
    """Assert statements for the calls whose results are known."""
    return [
        f"assert {entry}({call}) == {result}" for call, result in zip(calls, results, strict=True) if result is not None
    ]


def tell_nothing(tests: Sequence[str]) -> bool:
    """Whether tests cannot tell a solution from one that always returns the same."""
    return len({test.rpartition(" == ")[2] for test in tests}) < 2
