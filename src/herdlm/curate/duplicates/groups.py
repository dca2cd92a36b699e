"""From keys to groups of rows: rows that share a key are joined, and joined rows form groups led by their first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def edges(keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs (row, first), each once and ascending: every row with the smallest row of a key that it has.

    Takes ``keys`` (N,) and the ``rows`` (N,) that have them in any order; a row may have many keys. Joining to the
    first alone makes at most N pairs, and the groups are those that all pairs would make. Keys may be split among
    calls (by partition, say) as long as all occurrences of a key are in the same one.
    """
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    starts = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))
    firsts = np.repeat(rows[starts], np.diff(starts, append=len(rows)))
    pairs = np.stack([rows, firsts], axis=1)[rows != firsts]
    return unique_pairs(pairs)


def unique_pairs(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs (P, 2) ascending, each once."""
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    is_new = np.ones(len(pairs), bool)
    is_new[1:] = np.any(pairs[1:] != pairs[:-1], axis=1)
    return pairs[is_new]


def connect(pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The connected groups of ``pairs`` (P, 2): all rows in them, ascending, and for each the first row of its group.

    A round hands the smaller label across each pair to both ends and to the rows their labels name, then halves all
    paths (Shiloach & Vishkin 1982, with minima). Rounds grow with the logarithm of the longest chain; a round costs
    O(P), so the whole is nearly linear beside the sort that numbers the rows.
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
    """What to drop: of every connected group all rows but the first, ascending, and for each the first."""
    rows, firsts = connect(pairs)
    is_repeat = rows != firsts
    return rows[is_repeat], firsts[is_repeat]
