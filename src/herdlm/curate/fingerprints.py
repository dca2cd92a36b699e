"""What the first pass records of the pages it kept, for the later passes: fingerprints, sketches and word counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from herdlm.curate.batch import Batch
from herdlm.curate.duplicates.url import url_key
from herdlm.curate.step import Ledger, still_in
from herdlm.curate.steps.exact_duplicates import digest
from herdlm.curate.steps.near_duplicates.minhash import NearDuplicatesConfig, band_keys, fingerprint
from herdlm.curate.steps.near_duplicates.sketches import write_sketches
from herdlm.curate.steps.older_versions import parse_date
from herdlm.curate.steps.outliers import WordCounts, words_file
from herdlm.curate.steps.repeated_lines import line_keys


class Fingerprints:
    """Collects the sketches and word counts of a shard, and sets the columns by which later steps compare pages."""

    def __init__(self, config: NearDuplicatesConfig) -> None:
        self.config = config
        self._words = WordCounts()
        self._rows: list[int] = []
        self._sketches: list[NDArray[np.uint8]] = []

    def add(self, batch: Batch, ledger: Ledger) -> None:
        """Add the pages of a batch that no step has dropped."""
        kept = still_in(batch)
        with ledger.timed("word counts"):
            for i in kept:
                self._words.add(batch["split"][i], batch["language"][i])
        with ledger.timed("fingerprints"):
            if kept:
                self._set_columns(batch, kept)

    def _set_columns(self, batch: Batch, kept: list[int]) -> None:
        signatures: list[NDArray[np.uint32]] = []
        for i in kept:
            words, url = batch["split"][i], batch["url"][i]
            batch["digest"][i] = digest(" ".join(words.normalized))
            minima, sketch = fingerprint(words.normalized, self.config)
            batch["lines"][i] = line_keys(words.text, words.normalized_lines).tolist()
            if url:
                batch["url_key"][i], batch["time"][i] = url_key(url), parse_date(batch["date"][i])
            self._rows.append(batch["row"][i])
            signatures.append(minima)
            self._sketches.append(sketch)
        bands = band_keys(np.stack(signatures), self.config.bands, [batch["language"][i] for i in kept])
        for i, keys in zip(kept, bands.tolist(), strict=True):
            batch["bands"][i] = keys

    def write(self, pages: Path) -> None:
        """Write the sketches and word counts beside the shard's file of pages."""
        self._words.write(words_file(pages))
        write_sketches(pages, self._rows, self._sketches, self.config.sketch)
