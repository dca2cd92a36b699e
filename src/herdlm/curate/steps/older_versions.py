"""Drops pages of which the corpus has a newer version at the same address."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from herdlm.curate.shuffle import RECORD, Records, as_records
from herdlm.curate.step import Compared, CorpusStep

if TYPE_CHECKING:
    import pyarrow as pa

UNDATED = np.iinfo(np.int64).min
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LENGTHS = {4: "%Y", 7: "%Y-%m", 14: "%Y%m%d%H%M%S"}  # as in WARC 1.1, and in crawl indexes


DATED = np.dtype([*RECORD.descr, ("time", "<i8")])


class OlderVersions(CorpusStep):
    """Keeps the newest of the pages that have the same address and passed the steps before."""

    name, reason, columns, record = "older_versions", "older_version", ("url_key", "time"), DATED

    def keys(self, pages: pa.Table) -> Records:
        """The key of each page's address, with its date."""
        records = as_records(pages["url_key"].to_numpy(), pages["row"].to_numpy(), DATED)
        records["time"] = pages["time"].to_numpy()
        return records

    def gather(self, records: Records, compared: Compared) -> NDArray[np.int64]:
        """Pairs of a row and the row of its newest version."""
        return newest(records["key"], records["time"], records["row"])


def parse_date(text: str) -> int:
    """Return the microseconds since 1970 of a WARC-Date or another form of ISO 8601, or ``UNDATED`` if it is neither.

    Times without a zone are in UTC. A year, month or day stands for its start.
    """
    text = text.strip()
    try:
        form = _LENGTHS.get(len(text))
        date = datetime.strptime(text, form) if form else datetime.fromisoformat(text)
        return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return UNDATED


def newest(keys: NDArray[np.uint64], times: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return pairs (row, newest) (P, 2), ascending: each row that has a newer version, with its newest one.

    Takes the key (of the address), time (:func:`parse_date`) and row of N pages in any order. An undated page is older
    than any other. Of equal times, the last row is the newest, since it was fetched last.
    """
    order = np.lexsort((rows, times, keys))
    keys, rows = keys[order], rows[order]
    is_newest = np.ones(len(keys), bool)
    is_newest[:-1] = keys[1:] != keys[:-1]
    ends = np.flatnonzero(is_newest)
    of_row = rows[ends[np.searchsorted(ends, np.arange(len(rows)))]] if len(rows) else rows
    pairs = np.stack([rows, of_row], axis=1)[~is_newest]
    return pairs[np.argsort(pairs[:, 0])]
