"""Texts that are equal but for case, spacing and punctuation: the first of each is kept."""

from __future__ import annotations

import hashlib


def digest(normalized: str) -> int:
    """64 bits of a normalised text: equal for equal texts; of n different ones about n**2 / 2**65 pairs are, too."""
    return int.from_bytes(hashlib.blake2b(normalized.encode(), digest_size=8).digest(), "little")
