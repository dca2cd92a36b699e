"""Drops texts that equal an earlier one but for case, spacing and punctuation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from herdlm.curate.config import CurateConfig
from herdlm.curate.duplicates.groups import edges
from herdlm.curate.duplicates.index import Index
from herdlm.curate.shuffle import RECORD, Records, as_records
from herdlm.curate.step import Compared, CorpusStep


class ExactDuplicates(CorpusStep):
    """Drops texts that equal an earlier one but for case, spacing and punctuation."""

    name, reason, columns = "exact_duplicates", "same_text", ("digest",)

    def keys_per_page(self, config: CurateConfig) -> int:
        """One digest."""
        return 1

    def keys(self, pages: pa.Table, config: CurateConfig) -> Records:
        """The digest of every page's text."""
        return as_records(pages["digest"].to_numpy(), pages["row"].to_numpy(), RECORD)

    def gather(self, records: Records, compared: Compared, config: CurateConfig) -> NDArray[np.int64]:
        """Pairs of a row with the first row of its digest, an earlier corpus' before this one's."""
        if config.index:
            index = Index.open(Path(config.index), config.near_duplicates, hashes=False)
            return index.edges("digests", records["key"], records["row"])
        return edges(records["key"], records["row"])

    def settle(self, pairs: NDArray[np.int64], config: CurateConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows to drop, and the first row of each one's text."""
        return pairs[:, 0], pairs[:, 1]
