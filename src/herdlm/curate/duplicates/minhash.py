"""Near-equal texts by MinHash (Broder 1997) with banding: of every connected group the first is kept.

Rows of signatures are hashed band by band on the workers, texts that share a band are found by grouping row numbers,
and the groups those pairs connect are found on the driver, where a pair costs 16 bytes.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from herdlm.curate import dataframe
from herdlm.curate.config import NearDuplicatesConfig

BANDS_SCHEMA = pa.schema([("row", pa.int64()), ("band", pa.list_(pa.uint64()))])
BATCH_ROWS = 4096


def band_keys(signatures: NDArray[np.uint32], bands: int) -> NDArray[np.uint64]:
    """The key of every band of every signature: (N, bands * rows) minima -> (N, bands) keys.

    Keys are equal where all rows of a band are; a key also says which band it is of.
    """
    count = len(signatures)
    values = signatures.reshape(count, bands, -1).astype(np.uint64)
    keys = np.broadcast_to(_mix(np.arange(1, bands + 1, dtype=np.uint64)), (count, bands))
    for row in range(values.shape[2]):
        keys = _mix(keys ^ values[:, :, row])
    return keys


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: a permutation of 64-bit numbers in which every bit depends on every bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _bands(batch: pa.RecordBatch, bands: int) -> pa.RecordBatch:
    signatures = batch["signature"].flatten().to_numpy(zero_copy_only=False).astype(np.uint32, copy=False)
    keys = band_keys(signatures.reshape(len(batch), -1), bands)
    offsets = pa.array(np.arange(len(batch) + 1, dtype=np.int32) * bands)
    return pa.RecordBatch.from_arrays(
        [batch["row"], pa.ListArray.from_arrays(offsets, pa.array(keys.ravel()))], schema=BANDS_SCHEMA
    )


def connect(pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The connected groups of ``pairs`` (P, 2): all rows in them, ascending, and for each the first row of its group.

    Every pass hands the smallest label across each pair and then halves the paths to it, so a chain of n rows settles
    in about log n passes.
    """
    rows, ends = np.unique(pairs, return_inverse=True)
    left, right = ends.reshape(-1, 2).T
    label = np.arange(len(rows))
    while True:
        smallest = np.minimum(label[left], label[right])
        updated = label.copy()
        np.minimum.at(updated, label[left], smallest)
        np.minimum.at(updated, label[right], smallest)
        updated = updated[updated]
        if np.array_equal(updated, label):
            return rows, rows[label]
        label = updated


def near_duplicates(documents: dataframe.Frame, config: NearDuplicatesConfig) -> pa.Table:
    """Among ``documents`` (columns row, signature), those to drop: columns ``row`` and ``first`` of its group."""
    bands = dataframe.map_batches(
        documents.select("row", "signature"), partial(_bands, bands=config.bands), BANDS_SCHEMA, batch_rows=BATCH_ROWS
    )
    met = dataframe.first_rows(dataframe.explode(bands, "band"), "band", "row")
    pairs = np.stack([met["row"].to_numpy(), met["first"].to_numpy()], axis=1).astype(np.int64)
    rows, firsts = connect(pairs) if len(pairs) else (pairs[:, 0], pairs[:, 0])
    dropped = rows != firsts
    return pa.table({"row": rows[dropped], "first": firsts[dropped]})
