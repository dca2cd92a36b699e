"""Several versions of one page: the newest is kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

UNDATED = np.iinfo(np.int64).min
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LENGTHS = {4: "%Y", 7: "%Y-%m", 14: "%Y%m%d%H%M%S"}  # WARC 1.1 allows years and months; indexes of crawls the last


def parse_date(text: str) -> int:
    """Microseconds since 1970 of a WARC-Date or another form of ISO 8601, or ``UNDATED`` where it is none.

    A time without a zone is in UTC; of a year, month or day its beginning is meant.
    """
    text = text.strip()
    try:
        form = _LENGTHS.get(len(text))
        date = datetime.strptime(text, form) if form else datetime.fromisoformat(text)
        return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return UNDATED


def older_versions(keys: NDArray[np.uint64], dates: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows, ascending, of which a newer version is among them: for each key (its address) one row is left.

    Takes the key, date and row of N pages in any order. An undated page is older than any other; of equal dates the
    last row is the newest, being fetched last.
    """
    times = np.fromiter(map(parse_date, dates), np.int64, len(dates))
    order = np.lexsort((rows, times, keys))
    is_newest = np.ones(len(keys), bool)
    is_newest[:-1] = keys[order][1:] != keys[order][:-1]
    return np.sort(rows[order][~is_newest])
