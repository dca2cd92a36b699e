"""The range of a file that a reader reads, and how far it got."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Reach:
    """A reader yields the records that start in [``begin``, ``end``); ``end`` can be beyond the end of the file.

    If a range begins within a record, its reader searches for the start of the next one. Text that looks like a record
    (a crawl within a crawl) can mislead it. So each reader reports where its ``first`` record starts and, having read
    in order, where the ``next`` one after its range does. If two neighbors disagree, the second is repeated with the
    right start (``known``).

    Attributes:
        known: A record is known to start at ``begin``.
        first: Set by the reader. None if no record starts in the file from ``begin`` on.
        next: Set by the reader. None if no record follows.
        lost: Set by the reader: damage took it to the end of the file, so records can follow nevertheless.
        at: Set by the reader: where it is, to show progress.
    """

    begin: int
    end: int
    known: bool = False
    first: int | None = None
    next: int | None = None
    lost: bool = False
    at: int = 0
