"""Drops texts that equal an earlier one except for case, spacing and punctuation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from herdlm.curate.duplicates.groups import edges
from herdlm.curate.duplicates.hashing import hash_text
from herdlm.curate.duplicates.index import open_index
from herdlm.curate.shuffle import RECORD, Records, as_records
from herdlm.curate.step import Compared, CorpusStep
from herdlm.curate.steps.near_duplicates.minhash import NearDuplicatesConfig

if TYPE_CHECKING:
    import pyarrow as pa


def digest(normalized: str) -> int:
    """Return the 64-bit key of a text that ``words.normalize`` returned."""
    return hash_text(normalized)


@dataclass(frozen=True)
class ExactDuplicates(CorpusStep):
    """Keeps the first of equal texts, in this corpus or in the ``index`` of earlier ones ("" for none)."""

    index: str
    index_parameters: NearDuplicatesConfig

    name, reason, columns = "exact_duplicates", "same_text", ("digest",)

    def keys(self, pages: pa.Table) -> Records:
        """The digest of each page's text."""
        return as_records(pages["digest"].to_numpy(), pages["row"].to_numpy(), RECORD)

    def gather(self, records: Records, compared: Compared) -> NDArray[np.int64]:
        """Pairs of a row and the first row with its digest. Rows of the index come first."""
        if self.index:
            index = open_index(self.index, self.index_parameters)
            return index.edges("digests", records["key"], records["row"])
        return edges(records["key"], records["row"])
