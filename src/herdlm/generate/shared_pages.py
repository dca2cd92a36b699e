"""Which sequences hold which pages in common, so that each page is read once for all of them.

A page that two block tables name at the same place is the same prefix. The tables form a tree: a system prompt at its
root, the prompts that follow it, the samples of each prompt.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from herdlm.generate.sequences import Integers

WORTH_PAGES = 8  # reads of pages that sharing must save; an extra call per layer costs about as much


def find_shared(tables: Integers, full: Integers) -> Iterator[tuple[Integers, int, int]]:
    """Runs of pages that several sequences hold.

    Args:
        tables: [D, P] block tables.
        full: [D] the pages at the beginning of each that are complete and seen by the query as a whole.

    Yields:
        (sequences [R], begin, end): they hold the pages of columns begin to end in common. For each sequence the runs
        follow on one another from column 0.
    """
    if len(tables) > 1:
        order = np.lexsort(tables.T[::-1])  # neighbors have the most in common
        yield from _runs(tables, full, order, 0, 0)


def _runs(
    tables: Integers, full: Integers, rows: Integers, begin: int, column: int
) -> Iterator[tuple[Integers, int, int]]:
    """Runs of ``rows``, which are sorted and hold the same pages before ``column``; those before ``begin`` are done."""
    limit = int(full[rows].min())
    block = tables[rows, column:limit]
    same = (block == block[:1]).all(axis=0)
    column = limit if same.all() else column + int(np.argmin(same))
    if (len(rows) - 1) * (column - begin) >= WORTH_PAGES:
        yield rows, begin, column
        begin = column
    here = rows[full[rows] > column]
    if not len(here):
        return
    page = tables[here, column]
    for part in np.split(here, np.flatnonzero(page[1:] != page[:-1]) + 1):
        if len(part) > 1:
            yield from _runs(tables, full, part, begin, column)
