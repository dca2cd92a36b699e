"""A word problem under construction: its story, its steps, and its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from herdlm.align.synth.draw import Draw
from herdlm.align.synth.word_problems.things import HE, SHE
from herdlm.data.formats.problems import number_text

WORDS = 0.08  # share of small numbers that are written as words
SMALL = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


class Unsuitable(Exception):  # noqa: N818 - not an error: another draw is taken
    """The drawn numbers make no sensible story."""


@dataclass
class Problem:
    """A story with the steps that solve it.

    Attributes:
        structure: what kind of problem it is, such as "groups, lose, share".
        story: sentences, the question last.
        lines: the steps, each "a + b = c".
        value: the last result, or what is known so far.
    """

    structure: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    value: Fraction = Fraction(0)

    def step(self, left: Fraction | int, sign: str, right: Fraction | int) -> Fraction:
        """Add a step and return its result.

        Raises:
            Unsuitable: it is below zero, or has more than two digits after the point.
        """
        left, right = Fraction(left), Fraction(right)
        if sign == "/" and right == 0:
            raise Unsuitable
        value = {"+": left + right, "-": left - right, "*": left * right, "/": left / right if right else left}[sign]
        if value <= 0 or (value * 100).denominator != 1:
            raise Unsuitable
        self.lines.append(f"{shown(left)} {sign} {shown(right)} = {shown(value)}")
        self.value = value
        return value

    def whole_step(self, left: Fraction | int, sign: str, right: Fraction | int) -> Fraction:
        """As :meth:`step`, for things that are counted.

        Raises:
            Unsuitable: the result is not a whole number above 1.
        """
        value = self.step(left, sign, right)
        if value.denominator != 1 or value < 2:
            raise Unsuitable
        return value

    @property
    def text(self) -> str:
        """The story as it is asked."""
        return " ".join(self.story)

    @property
    def worked(self) -> str:
        """The steps, one a line, and the answer."""
        return "\n".join([*self.lines, f"The answer is {shown(self.value)}."])


def shown(value: Fraction | int) -> str:
    """A number as it is written in steps and answers."""
    value = Fraction(value)
    return number_text(int(value)) if value.denominator == 1 else number_text(float(value))


class StoryDraw(Draw):
    """Draws for one problem: numbers, people and words that do not repeat.

    Attributes:
        largest: about the largest number in a story.
    """

    def __init__(self, random: np.random.Generator, largest: int) -> None:
        super().__init__(random)
        self.largest = largest
        self._taken: set[str] = set()

    def upto(self, low: int, high: int | None = None) -> int:
        """A number from ``low`` to ``high``, or to the largest; small ones are drawn more often."""
        high = max(low, min(self.largest if high is None else high, self.largest))
        return low + int((high - low + 1) * self.random.random() ** 1.3)

    def person(self) -> str:
        """A name that was not drawn before."""
        free = [name for name in (*SHE, *HE) if name not in self._taken]
        name = self.one(free)
        self._taken.add(name)
        return name

    def n(self, number: int | Fraction) -> str:
        """A number as the story has it, small ones at times as words."""
        if 2 <= number <= 12 and Fraction(number).denominator == 1 and self.chance(WORDS):
            return SMALL[int(number)]
        text = shown(number)
        return f"{int(number):,}" if Fraction(number).denominator == 1 and number >= 10000 else text


def pronoun(name: str) -> str:
    """He or she."""
    return "she" if name in SHE else "he"


def capital(text: str) -> str:
    """A text with a capital first letter."""
    return text[:1].upper() + text[1:]
