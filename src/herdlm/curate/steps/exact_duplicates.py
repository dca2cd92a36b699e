"""Texts that are equal but for case, spacing and punctuation: the first of each is kept."""

from __future__ import annotations

from herdlm.curate.duplicates.hashing import hash_text


def digest(normalized: str) -> int:
    """The 64-bit key of a text that ``words.normalize`` went over; :func:`groups.edges` finds those that are equal."""
    return hash_text(normalized)
