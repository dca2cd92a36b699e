"""From keys to groups of rows: rows that share a key are joined, and joined rows form groups led by their first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def edges(keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs (row, first), each once and ascending: every row with the smallest row of a key that it has."""
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    is_first = np.ones(len(keys), bool)
    is_first[1:] = keys[1:] != keys[:-1]
    starts = np.flatnonzero(is_first)
    firsts = np.repeat(rows[starts], np.diff(starts, append=len(rows)))
    pairs = np.stack([rows, firsts], axis=1)[rows != firsts]
    return np.unique(pairs, axis=0)


def connect(pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The connected groups of ``pairs`` (P, 2): all rows in them, ascending, and for each the first row of its group.

    Every pass hands the smallest label across each pair and then halves the paths to it, so a chain of n rows settles
    in about log n passes.
    """
    rows, ends = np.unique(pairs, return_inverse=True)
    left, right = ends.reshape(-1, 2).T
    label = np.arange(len(rows))
    while True:
        smallest = np.minimum(label[left], label[right])
        updated = label.copy()
        np.minimum.at(updated, label[left], smallest)
        np.minimum.at(updated, label[right], smallest)
        updated = updated[updated]
        if np.array_equal(updated, label):
            return rows, rows[label]
        label = updated


def repeats(pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What to drop: of every connected group all rows but the first, ascending, and for each the first."""
    rows, firsts = connect(pairs)
    is_repeat = rows != firsts
    return rows[is_repeat], firsts[is_repeat]
