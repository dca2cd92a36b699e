"""New inputs of a function, like those in its tests but different."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from herdlm.align.synth.draw import Draw

INPUTS = 24  # that are tried


@dataclass(frozen=True, slots=True)
class Seen:
    """The least and the largest whole number in an argument's examples, which new ones do not leave by much."""

    least: int
    most: int

    @classmethod
    def of(cls, examples: Sequence[Any]) -> Seen:
        """Of all numbers in some values."""
        numbers = [number for example in examples for number in _numbers(example)] or [0]
        return cls(min(numbers), max(numbers))


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, dict):
        yield from _numbers(list(value.values()))
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _numbers(item)


def varied(draw: Draw, value: Any, seen: Seen) -> Any:
    """A literal that is like another one, but different; None stays as it is."""
    match value:
        case bool():
            made: Any = not value if draw.chance(0.5) else value
        case int():
            made = min(max(value + draw.number(-4, 6), seen.least), seen.most + 3)
        case float():
            made = round(value + draw.number(0, 4) + 0.5, 2)
        case str():
            made = _varied_text(draw, value)
        case list() | tuple():
            made = type(value)(_varied_items(draw, value, seen))
        case dict():
            made = {key: varied(draw, item, seen) for key, item in value.items()}
        case set():
            made = {varied(draw, item, seen) for item in sorted(value, key=repr)}
        case _:
            made = value
    return made


def _varied_items(draw: Draw, value: Sequence[Any], seen: Seen) -> list[Any]:
    """Some items changed, and at times one more or fewer."""
    items = [varied(draw, item, seen) if draw.chance(0.6) else item for item in value]
    if len(items) > 2 and draw.chance(0.3) and not _is_table(items):
        items.pop(draw.number(0, len(items) - 1))
    elif items and draw.chance(0.3) and not _is_table(items):
        items.insert(draw.number(0, len(items)), varied(draw, draw.one(items), seen))
    return items


def _is_table(items: Sequence[Any]) -> bool:
    """Whether items are rows, whose number other arguments may speak of."""
    return all(isinstance(item, list | tuple) for item in items)


def _varied_text(draw: Draw, text: str) -> str:
    words = text.split(" ")
    way = draw.number(0, 3)
    if len(words) > 2 and way < 2:
        return " ".join(draw.some(words, len(words)))
    if way == 2 and len(text) > 3:
        cut = draw.number(1, len(text) - 1)
        return text[cut:] + text[:cut]
    if way == 3 and text:
        at = draw.number(0, len(text) - 1)
        return text[:at] + text[at] * 2 + text[at + 1 :]
    return text[::-1]


def new_inputs(draw: Draw, calls: Sequence[str]) -> list[str]:
    """Argument texts like those of given calls, each different."""
    found: dict[str, None] = {}
    given = [ast.literal_eval(f"({call},)") for call in calls]
    given = [arguments for arguments in given if len(arguments) == len(given[0])]
    seen = [Seen.of([arguments[place] for arguments in given]) for place in range(len(given[0]))]
    for _ in range(INPUTS):
        arguments = draw.one(given)
        text = ", ".join(repr(varied(draw, *each)) for each in zip(arguments, seen, strict=True))
        if text not in calls:
            found[text] = None
    return list(found)
