"""What a step of quality control is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from herdlm.align.quality.example import Example, Turn

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Drop:
    """Why an example is dropped.

    Attributes:
        reason: one of the few that the step knows, so that they can be counted.
        detail: what was found in this example.
        of: the key of the example that it repeats.
    """

    reason: str
    detail: str = ""
    of: str = ""


@dataclass(slots=True)
class Shared:
    """What steps need besides the examples.

    Attributes:
        embed: texts to vectors of length 1, [N, D]; None: there is no model.
        against: texts of evaluation items, by the name of their file.
        seeds: texts with their topics, that examples without a task are compared with.
        seed: of all randomness.
        report: what steps say about themselves for the funnel, by step.
    """

    embed: Embed | None = None
    against: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seeds: Sequence[tuple[str, str]] = ()
    seed: int = 0
    report: dict[str, Any] = field(default_factory=dict)


class Step(ABC):
    """Judges the examples that no step before it dropped. They come in an order that depends on their content alone.

    Attributes:
        name: its recipe section and its row in the funnel.
        needs_embeddings: it is passed over without a model.
    """

    name: ClassVar[str]
    needs_embeddings: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """Say for each example why it is dropped, or None. May fill in what is known of an example."""


class TurnRule(Step):
    """A rule that judges each answer by itself; the example is dropped if one breaks it."""

    def run(self, examples: Sequence[Example], shared: Shared) -> list[Drop | None]:
        """See :meth:`Step.run`."""
        return [next((drop for turn in e.turns if (drop := self.judge(turn, e)) is not None), None) for e in examples]

    @abstractmethod
    def judge(self, turn: Turn, example: Example) -> Drop | None:
        """Say why an answer breaks the rule, or None."""
