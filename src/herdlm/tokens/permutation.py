"""A shuffle of any length that needs no memory: where each place goes is computed, not stored."""

from __future__ import annotations

ROUNDS = 4
MASK64 = (1 << 64) - 1


def permuted(place: int, length: int, seed: int) -> int:
    """Where ``place`` goes in the permutation of 0 .. ``length`` - 1 that belongs to ``seed``.

    A Feistel network over the smallest even number of bits that holds ``length``, walked until it lands inside (Black
    and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    half = max((length - 1).bit_length() + 1, 2) // 2
    low = (1 << half) - 1
    while True:
        left, right = place >> half, place & low
        for turn in range(ROUNDS):
            left, right = right, left ^ (_mixed(right + (turn << half) ^ seed) & low)
        place = left << half | right
        if place < length:
            return place


def _mixed(value: int) -> int:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of the result depends on every bit of ``value``."""
    value = (value + 0x9E3779B97F4A7C15) & MASK64
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK64
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK64
    return value ^ value >> 31
