"""Draws of one item from its own random stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draw:
    """Draws from a random stream; see :meth:`herdlm.align.synth.setting.Setting.random`."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random

    def one(self, choices: Sequence[T]) -> T:
        """One of several, each as likely."""
        return choices[int(self.random.integers(len(choices)))]

    def some(self, choices: Sequence[T], count: int) -> list[T]:
        """Several different ones in a random order; all of them if there are too few."""
        order = self.random.permutation(len(choices))[:count]
        return [choices[int(index)] for index in order]

    def number(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return int(self.random.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with a probability."""
        return bool(self.random.random() < probability)
