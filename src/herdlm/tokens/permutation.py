"""A shuffle of any length that needs no memory: positions are computed, not stored."""

from __future__ import annotations

ROUNDS = 4
MASK64 = (1 << 64) - 1


def permuted(place: int, length: int, seed: int) -> int:
    """The image of ``place`` under the permutation of 0 .. ``length`` - 1 that ``seed`` selects.

    A Feistel network over the smallest even number of bits that holds ``length``, applied until the result is below
    ``length`` (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    half = max((length - 1).bit_length() + 1, 2) // 2
    low = (1 << half) - 1
    while True:
        left, right = place >> half, place & low
        for number in range(ROUNDS):
            left, right = right, left ^ (_mixed(right + (number << half) ^ seed) & low)
        place = left << half | right
        if place < length:
            return place


def _mixed(value: int) -> int:
    """The finalizer of SplitMix64 (Steele et al. 2014): every bit of the result depends on every bit of ``value``."""
    value = (value + 0x9E3779B97F4A7C15) & MASK64
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK64
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK64
    return value ^ value >> 31
