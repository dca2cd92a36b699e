"""A file of rows, and how often each of them is used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from herdlm.base.errors import InputError


@dataclass(frozen=True, slots=True)
class Source:
    """A file, and how often each of its rows is used: 2 is twice, 0.5 is a random half of them."""

    path: Path
    weight: float = 1.0


def parse_source(given: str) -> Source:
    """``FILE`` or ``FILE:weight``. A file whose whole name exists is that file, whatever its name ends with.

    Raises:
        InputError: the weight is not above zero.
    """
    name, colon, weight = given.rpartition(":")
    if not colon or not name or Path(given).exists():
        return Source(Path(given))
    try:
        number = float(weight)
    except ValueError:
        return Source(Path(given))
    if not 0 < number < math.inf:
        raise InputError(f"{given}: the weight {weight} is not above zero", "Write FILE:2 or FILE:0.5")
    return Source(Path(name), number)
