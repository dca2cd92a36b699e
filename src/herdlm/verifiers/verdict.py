"""What a verifier says about an answer, and what all verifiers have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from pydantic import ConfigDict

from herdlm.base.recipe import Section


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verifier's judgment of one answer.

    Attributes:
        passed: whether the answer is right.
        score: from 0 to 1, such as the share of instructions that are kept.
        reason: one of the few that the verifier knows, so that reasons can be counted.
        details: what was found in this answer, as JSON values.
    """

    passed: bool
    score: float
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)


def passed(reason: str, **details: Any) -> Verdict:
    """The verdict on a right answer."""
    return Verdict(True, 1.0, reason, details)


def failed(reason: str, **details: Any) -> Verdict:
    """The verdict on a wrong answer."""
    return Verdict(False, 0.0, reason, details)


class Verifier(Section):
    """Judges answers; its fields are its options. What it opens is closed by :meth:`close`, or by ``with``.

    Attributes:
        reference_keys: the keys of a row that together are the reference, where it is more than one value.
        optional_keys: further keys of it, which a row may lack.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)  # letters=1234 on the command line is a number

    reference_keys: ClassVar[tuple[str, ...]] = ()
    optional_keys: ClassVar[tuple[str, ...]] = ()

    @property
    def needs_reference(self) -> bool:
        """Whether an answer can only be judged with a reference."""
        return True

    @property
    def threads(self) -> int:
        """How many threads may call the verifier at once with profit."""
        return 1

    @abstractmethod
    def __call__(self, answer: str, reference: Any = None) -> Verdict:
        """Judge an answer.

        Raises:
            InputError: the reference is not one for this verifier.
        """

    def close(self) -> None:
        """Free what the verifier opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
