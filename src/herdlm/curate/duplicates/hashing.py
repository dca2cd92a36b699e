"""The two hashes that all keys use: BLAKE2b for strings, SplitMix64's finalizer for numbers. Neither has a seed."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def hash_text(text: str) -> int:
    """Return 64 bits of BLAKE2b of a string in UTF-8, the same on every machine.

    Among n different strings, about n**2 / 2**65 pairs collide: 0.03 in a billion, 2.7 in ten billion.
    """
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply the finalizer of SplitMix64: a permutation of 64-bit numbers that mixes every bit into all others."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
