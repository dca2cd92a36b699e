"""Data sets' names of harm as codes of the guard's categories."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from herdlm.base.errors import InputError
from herdlm.serve.guard.guard import CATEGORIES

OTHER = "none"
ALIASES: dict[str, tuple[str, ...]] = {
    "violence": ("S1",),
    "terrorism": ("S1",),
    "crime": ("S2",),
    "theft": ("S2",),
    "fraud": ("S2",),
    "drugs": ("S2",),
    "child abuse": ("S4",),
    "child sexual exploitation": ("S4",),
    "defamation": ("S5",),
    "privacy": ("S7",),
    "privacy violation": ("S7",),
    "copyright": ("S8",),
    "weapons": ("S9",),
    "hate": ("S10",),
    "hate speech": ("S10",),
    "harassment": ("S10",),
    "discrimination": ("S10",),
    "self harm": ("S11",),
    "suicide": ("S11",),
    "sexual": ("S12",),
    "sexual content": ("S12",),
    "elections": ("S13",),
}
"""Names that data sets share, beside the codes and the names of the protocol itself."""


class CategoryNames:
    """Finds the codes of a category's name.

    Args:
        given: the user's names, each with its codes; none where the guard has no category for it.
    """

    def __init__(self, given: Mapping[str, Sequence[str]] | None = None) -> None:
        own = {name: (code,) for code, name in CATEGORIES.items()} | {code: (code,) for code in CATEGORIES}
        self._codes = {_plain(name): tuple(codes) for name, codes in {**ALIASES, **own, **(given or {})}.items()}

    def codes(self, names: Sequence[str]) -> tuple[str, ...]:
        """The codes of several names, in the protocol's order.

        Raises:
            KeyError: a name is unknown.
        """
        found = {code for name in names for code in self._codes[_plain(name)]}
        return tuple(code for code in CATEGORIES if code in found)


def parse_categories(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Names with their codes from ``NAME=S1`` or ``NAME=S1,S9``; ``NAME=none`` has no code.

    Raises:
        InputError: one is not of this form, or names an unknown code.
    """
    found: dict[str, tuple[str, ...]] = {}
    for item in given:
        name, sign, codes = item.rpartition("=")
        listed = tuple(code.strip().upper() for code in codes.split(",")) if codes.strip() != OTHER else ()
        if not sign or not name.strip():
            raise InputError(f"--category {item} is not of the form NAME=CODE", "Write --category theft=S2")
        if unknown := [code for code in listed if code not in CATEGORIES]:
            raise InputError(
                f"--category {item}: there is no category {unknown[0]!r}", f"Use {', '.join(CATEGORIES)} or {OTHER}"
            )
        found[name.strip()] = listed
    return found


def _plain(name: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", name.lower()))
