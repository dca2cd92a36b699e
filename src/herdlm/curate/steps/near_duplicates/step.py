"""The step: finds candidates by MinHash bands, and verifies them by their sketches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from herdlm.curate.duplicates.groups import edges, repeats
from herdlm.curate.duplicates.index import open_index
from herdlm.curate.shuffle import RECORD, Records, as_records
from herdlm.curate.step import Compared, CorpusStep
from herdlm.curate.steps.near_duplicates.minhash import NearDuplicatesConfig, verified
from herdlm.curate.steps.near_duplicates.sketches import Sketches

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class NearDuplicates(CorpusStep):
    """Keeps the first of nearly equal texts, in this corpus or in the ``index`` of earlier ones ("" for none)."""

    settings: NearDuplicatesConfig
    index: str

    name, reason, columns = "near_duplicates", "similar_text", ("bands",)

    @property
    def keys_per_page(self) -> int:
        """One for each band."""
        return self.settings.bands

    def keys(self, pages: pa.Table) -> Records:
        """The keys of each page's bands. Texts of different languages never share one."""
        bands = pages["bands"].combine_chunks()
        rows = np.repeat(pages["row"].to_numpy(), self.settings.bands)
        return as_records(bands.flatten().to_numpy(), rows, RECORD)

    def gather(self, records: Records, compared: Compared) -> NDArray[np.int64]:
        """Pairs of a row and the first row that shares a band with it, if their sketches are similar enough."""
        settings, sketches = self.settings, Sketches(compared.pages, self.settings.sketch)
        if not self.index:
            pairs = edges(records["key"], records["row"])
            return verified(pairs, sketches.of, settings.min_similarity)
        index = open_index(self.index, settings)

        def sketches_of(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
            result = np.empty((len(rows), settings.sketch), np.uint8)
            earlier = rows < 0
            result[earlier], result[~earlier] = index.sketches(rows[earlier]), sketches.of(rows[~earlier])
            return result

        return verified(index.edges("bands", records["key"], records["row"]), sketches_of, settings.min_similarity)

    def settle(self, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All rows but the first of each connected group, and the first row of each. Rows of the index stay."""
        rows, firsts = repeats(pairs)
        return rows[rows >= 0], firsts[rows >= 0]
