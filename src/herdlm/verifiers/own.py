"""Judges by a function of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import PrivateAttr

from herdlm.base.errors import InputError
from herdlm.base.own_parts import describe_error, load_part
from herdlm.verifiers.verdict import Verdict, Verifier, failed, passed


class Own(Verifier):
    """Calls ``function(answer, reference, **options)``, which returns a :class:`Verdict`, or whether the answer passes.

    Raises:
        InputError: there is no such function, or it does not take the options.
    """

    _reference: str = PrivateAttr()
    _function: Callable[..., Any] = PrivateAttr()
    _options: dict[str, Any] = PrivateAttr()

    def __init__(self, reference: str, options: Mapping[str, Any]) -> None:
        super().__init__()
        self._reference, self._options = reference, dict(options)
        self._function = load_part(reference, "verifier")
        try:
            inspect.signature(self._function).bind("", None, **options)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"verifier {reference} cannot be called: {error}", "Define function(answer, reference, **options)"
            ) from error

    @property
    def needs_reference(self) -> bool:
        """False: the function knows."""
        return False

    def __call__(self, answer: str, reference: Any = None) -> Verdict:
        """Judge an answer; see :meth:`Verifier.__call__`."""
        try:
            verdict = self._function(answer, reference, **self._options)
        except Exception as error:
            raise InputError(f"verifier {self._reference} failed with {describe_error(error)}", "Fix it") from error
        if isinstance(verdict, bool):
            return passed("passed") if verdict else failed("failed")
        if not isinstance(verdict, Verdict) or not 0 <= verdict.score <= 1:
            raise InputError(
                f"verifier {self._reference} returned {verdict!r}",
                "Return a Verdict with a score from 0 to 1, or a bool",
            )
        return verdict
