"""Turns keys into groups of rows: rows with the same key are connected, and each group is led by its first row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def edges(keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return pairs (row, first), unique and ascending: each row with the smallest row of a key that it has.

    Takes ``keys`` (N,) and the ``rows`` (N,) that have them, in any order; a row can have many keys. Connecting each
    row only to the first makes at most N pairs, and the same groups as all pairs would. Keys can be split among calls
    (by partition, say) if all occurrences of a key are in the same call.
    """
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    starts = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))
    firsts = np.repeat(rows[starts], np.diff(starts, append=len(rows)))
    pairs = np.stack([rows, firsts], axis=1)[rows != firsts]
    return unique_pairs(pairs)


def unique_pairs(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return pairs (P, 2) ascending, without repetitions."""
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    is_new = np.ones(len(pairs), bool)
    is_new[1:] = np.any(pairs[1:] != pairs[:-1], axis=1)
    return pairs[is_new]


def connect(pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all rows in the connected groups of ``pairs`` (P, 2), ascending, and the first row of each one's group.

    Each round passes the smaller label of a pair to both ends and to the rows that their labels name, and then halves
    all paths (Shiloach & Vishkin 1982, with minima). The number of rounds grows with the logarithm of the longest
    chain, and each costs O(P), so the whole is nearly linear, apart from the sort that numbers the rows.
    """
    rows, ends = np.unique(pairs, return_inverse=True)
    left, right = ends.reshape(-1, 2).T
    label = np.arange(len(rows))
    while True:
        smallest = np.minimum(label[left], label[right])
        updated = label.copy()
        for hooked in (left, right, label[left], label[right]):
            np.minimum.at(updated, hooked, smallest)
        updated = updated[updated]
        if np.array_equal(updated, label):
            return rows, rows[label]
        label = updated


def repeats(pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all rows but the first of each connected group, ascending, and the first row of each."""
    rows, firsts = connect(pairs)
    is_repeat = rows != firsts
    return rows[is_repeat], firsts[is_repeat]
