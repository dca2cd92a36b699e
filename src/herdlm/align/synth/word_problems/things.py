"""What the stories of word problems are about: people, things, and what happens to things."""

from __future__ import annotations

from dataclasses import dataclass

from herdlm.align.synth.texts import table


@dataclass(frozen=True, slots=True)
class Thing:
    """Things that can be counted.

    Attributes:
        items: their name in the plural.
        holders: what they are kept in, in the plural.
        kinds: two kinds of them, as words before the name.
        gains, losses: what somebody did when they became more or fewer; ``{n}`` is the number, ``{items}`` the name,
            ``{other}`` another person.
    """

    items: str
    holders: str
    kinds: list[str]
    gains: list[str]
    losses: list[str]


@dataclass(frozen=True, slots=True)
class Conversion:
    """Two units: so many (``size``) small ones make a large one. ``story`` takes ``{used}`` from ``{count}``."""

    small: str
    large: str
    size: int
    story: str


TEXTS = table("word_problems/things.toml")
SHE: list[str] = TEXTS["she"]
HE: list[str] = TEXTS["he"]
GAINS: list[str] = TEXTS["gains"]
LOSSES: list[str] = TEXTS["losses"]
PLACES: list[str] = TEXTS["places"]
THINGS = [Thing(**each) for each in TEXTS["things"]]
CONVERSIONS = [Conversion(**each) for each in TEXTS["conversions"]]
SOLD: list[tuple[str, str, int, int]] = TEXTS["sold"]
WORKERS: list[tuple[str, str, str]] = TEXTS["workers"]
VEHICLES: list[tuple[str, str, int, int]] = TEXTS["vehicles"]
