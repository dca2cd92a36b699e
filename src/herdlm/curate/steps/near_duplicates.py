"""Drops texts that nearly equal an earlier one of the same language."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from herdlm.curate.config import CurateConfig
from herdlm.curate.duplicates.groups import edges, repeats
from herdlm.curate.shuffle import RECORD, Records, as_records
from herdlm.curate.step import CorpusStep


class NearDuplicates(CorpusStep):
    """Drops texts that nearly equal an earlier one of the same language."""

    name, reason, columns = "near_duplicates", "similar_text", ("bands",)

    def keys_per_page(self, config: CurateConfig) -> int:
        """One for each band."""
        return config.near_duplicates.bands

    def keys(self, pages: pa.Table, config: CurateConfig) -> Records:
        """The keys of every page's bands; texts of different languages never share one."""
        bands = pages["bands"].combine_chunks()
        rows = np.repeat(pages["row"].to_numpy(), config.near_duplicates.bands)
        return as_records(bands.flatten().to_numpy(), rows, RECORD)

    def gather(self, records: Records, config: CurateConfig) -> NDArray[np.int64]:
        """Pairs of a row with the first row of a band it shares."""
        return edges(records["key"], records["row"])

    def settle(self, pairs: NDArray[np.int64], config: CurateConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of every group that pairs connect all rows but the first, and for each the first."""
        return repeats(pairs)
