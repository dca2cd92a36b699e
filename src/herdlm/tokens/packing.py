"""Packs whole items into rows."""

from __future__ import annotations

from collections.abc import Sequence

OPEN_ROWS = 8  # of the rows that are being packed, how many still take items
SHORTEST = 64  # tokens in the shortest row that a batch is cut down to


def pack_whole(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack whole items, in order, into rows of at most ``capacity``: each into the first open row with room.

    Only the last ``OPEN_ROWS`` rows are open, so an item stays near its place in the order, and packing takes linear
    time.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for item, length in enumerate(lengths):
        if length > capacity:
            raise ValueError(f"item {item} has {length} tokens, a row holds {capacity}")
        for r in range(max(0, len(rows) - OPEN_ROWS), len(rows)):
            if room[r] >= length:
                rows[r].append(item)
                room[r] -= length
                break
        else:
            rows.append([item])
            room.append(capacity - length)
    return rows


def pack_short(lengths: Sequence[int], seq_len: int) -> tuple[list[list[int]], int]:
    """As :func:`pack_whole` with rows of ``seq_len``, in as many but shorter rows; returns them and their length.

    Every layout that divides rows of ``seq_len`` tokens divides these: the length is a multiple of the odd part of
    ``seq_len`` and of its power of two up to ``SHORTEST``.
    """
    rows, power = pack_whole(lengths, seq_len), seq_len & -seq_len
    unit = seq_len // power * min(power, SHORTEST)
    for length in range(-(-max(lengths) // unit) * unit, seq_len, unit):
        shorter = pack_whole(lengths, length)
        if len(shorter) == len(rows):
            return shorter, length
    return rows, seq_len
