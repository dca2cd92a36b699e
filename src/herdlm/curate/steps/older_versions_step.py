"""Drops pages of which a newer version, under the same address, is in the corpus."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from herdlm.curate.config import CurateConfig
from herdlm.curate.shuffle import RECORD, Records, as_records
from herdlm.curate.step import Compared, CorpusStep
from herdlm.curate.steps.older_versions import newest

DATED = np.dtype([*RECORD.descr, ("time", "<i8")])


class OlderVersions(CorpusStep):
    """Keeps the newest of the pages that have one address and passed the steps before."""

    name, reason, columns, record = "older_versions", "older_version", ("url_key", "time"), DATED

    def keys_per_page(self, config: CurateConfig) -> int:
        """One address."""
        return 1

    def keys(self, pages: pa.Table, config: CurateConfig) -> Records:
        """The key of every page's address, with its date."""
        records = as_records(pages["url_key"].to_numpy(), pages["row"].to_numpy(), DATED)
        records["time"] = pages["time"].to_numpy()
        return records

    def gather(self, records: Records, compared: Compared, config: CurateConfig) -> NDArray[np.int64]:
        """Pairs of a row with the row of its newest version."""
        return newest(records["key"], records["time"], records["row"])

    def settle(self, pairs: NDArray[np.int64], config: CurateConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows to drop, and the newest version of each."""
        return pairs[:, 0], pairs[:, 1]
