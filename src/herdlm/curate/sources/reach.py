"""The part of a file that a reader is to read, and how far it got."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Reach:
    """A reader gives the records that start in [``begin``, ``end``); ``end`` may lie far behind the file's end.

    Where a range begins within a record, its reader looks for the next record's start. Text that looks like one (a
    crawl within a crawl) can mislead it. So each reader says where its ``first`` record starts and, having read in
    order, where the ``next`` one behind its range does: two neighbours agree, or the second is told the place
    (``known``).

    Args:
        known: a record is known to start at ``begin``.
        first: set by the reader; None where no record starts in the file from ``begin`` on.
        next: set by the reader; None where no record follows.
        lost: set by the reader: damage took it to the end of the file, so records may follow all the same.
        at: set by the reader: where it is, for showing progress.
    """

    begin: int
    end: int
    known: bool = False
    first: int | None = None
    next: int | None = None
    lost: bool = False
    at: int = 0
