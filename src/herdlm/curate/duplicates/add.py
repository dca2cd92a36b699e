"""Adds a curated corpus to an index, against which later crawls are deduplicated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from herdlm.base.errors import InputError
from herdlm.base.progress import Progress
from herdlm.curate.duplicates.index import Index
from herdlm.curate.steps.exact_duplicates import digest
from herdlm.curate.steps.near_duplicates.minhash import NearDuplicatesConfig, band_keys, fingerprint
from herdlm.curate.words import normalize


def add_to_index(corpus: Path, folder: Path, name: str, config: NearDuplicatesConfig) -> dict[str, Any]:
    """Add the documents of ``corpus``, made by `herdlm curate` or a run, to the index ``folder`` under ``name``.

    A new index is created with the parameters of ``config``.

    Raises:
        InputError: There are no documents, or the index has other parameters or a corpus of that name.
        DamagedError: A file of the index does not match its segment.
    """
    parts = sorted((corpus / "documents").glob("*.parquet"))
    if not parts:
        raise InputError(f"{corpus} has no documents/*.parquet", "Give the folder of a curated corpus")
    index = Index.open(folder, config) if folder.exists() else Index.create(folder, config)
    ids, digests, bands, sketches = [], [], [], []
    with Progress("index", len(parts), "parts") as progress:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(256, columns=["id", "text", "language"]):
                    for id_, text, language in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                        normalized = normalize(text)
                        minima, sketch = fingerprint(normalized.split(), config)
                        ids.append(id_)
                        digests.append(digest(normalized))
                        bands.append(band_keys(minima[None], config.bands, [language])[0])
                        sketches.append(sketch)
            progress.advance()
    if not ids:
        raise InputError(f"{corpus} has no documents", "Give the folder of a curated corpus")
    added = index.add(name, ids, np.array(digests, np.uint64), np.stack(bands), np.stack(sketches))
    return {"added": len(ids), "documents": added.documents, "segments": len(added.segments)}
