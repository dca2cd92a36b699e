"""Versions of the libraries that a benchmark compares, any of which may be missing."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

ABSENT = "not installed"


def version(distribution: str) -> str:
    """The installed version of a distribution, or :data:`ABSENT`."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def missing(arms: Iterable[str], distributions: dict[str, str]) -> list[str]:
    """The arms that cannot run: those whose first word is a key of ``distributions`` that is not installed."""
    absent = {name for name, distribution in distributions.items() if version(distribution) == ABSENT}
    return [arm for arm in arms if arm.split(maxsplit=1)[0] in absent]
