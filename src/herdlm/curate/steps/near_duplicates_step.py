"""Drops texts that nearly equal an earlier one of the same language."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from herdlm.curate.config import CurateConfig
from herdlm.curate.duplicates.groups import edges, repeats
from herdlm.curate.duplicates.index import Index
from herdlm.curate.shuffle import RECORD, Records, as_records
from herdlm.curate.step import Compared, CorpusStep
from herdlm.curate.steps.near_duplicates.minhash import verified
from herdlm.curate.steps.near_duplicates.sketches import Sketches


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

    def gather(self, records: Records, compared: Compared, config: CurateConfig) -> NDArray[np.int64]:
        """Pairs of a row with the first row of a band it shares, where their sketches are alike enough."""
        near, sketches = config.near_duplicates, Sketches(compared.pages, config.near_duplicates.sketch)
        if not config.index:
            pairs = edges(records["key"], records["row"])
            return verified(pairs, sketches.of, near.min_similarity)
        index = Index.open(Path(config.index), near, hashes=False)

        def sketches_of(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
            found = np.empty((len(rows), near.sketch), np.uint8)
            earlier = rows < 0
            found[earlier], found[~earlier] = index.sketches(rows[earlier]), sketches.of(rows[~earlier])
            return found

        return verified(index.edges("bands", records["key"], records["row"]), sketches_of, near.min_similarity)

    def settle(self, pairs: NDArray[np.int64], config: CurateConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of every group that pairs connect all rows but the first, and for each the first; an index' own stay."""
        rows, firsts = repeats(pairs)
        return rows[rows >= 0], firsts[rows >= 0]
