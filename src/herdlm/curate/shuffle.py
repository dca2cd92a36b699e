"""Brings equal keys together: scatters records into partitions by key, and gathers them partition by partition.

A record is a key (a hash) and a row number; text is never moved. Each scatter task writes one file that holds the
records of all partitions, one after another, and where each begins, so there are as many files as tasks. A gather task
reads one range of each file. Files appear by a rename, so an existing file is complete.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECORD = np.dtype([("key", "<u8"), ("row", "<i8")])
Records = NDArray[np.void]


def as_records(keys: NDArray[Any], rows: NDArray[np.int64], dtype: np.dtype[Any]) -> Records:
    """Return keys (N,) and rows (N,) as records (N,)."""
    records = np.empty(len(keys), dtype)
    records["key"], records["row"] = keys, rows
    return records


def partitions_for(records: int, megabytes: float, record: np.dtype[Any] = RECORD) -> int:
    """Return how many partitions of at most about ``megabytes`` hold that many records."""
    return max(-(-records * record.itemsize // max(int(megabytes * 1e6), 1)), 1)


def scatter(records: Records, partitions: int, path: Path) -> None:
    """Write the offset of each partition, and then the records ordered by partition."""
    # The high bits of the key choose the partition, so a partition holds a range of keys.
    at = ((records["key"] >> np.uint64(32)) * np.uint64(partitions)) >> np.uint64(32)
    order = np.argsort(at, kind="stable")
    offsets = np.zeros(partitions + 1, np.int64)
    np.cumsum(np.bincount(at.astype(np.int64), minlength=partitions), out=offsets[1:])
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, offsets, allow_pickle=False)
        np.save(file, records[order], allow_pickle=False)
    temporary.replace(path)


def gather(paths: Sequence[Path], partition: int, record: np.dtype[Any] = RECORD) -> Records:
    """Return all records of a partition, in the order of ``paths``."""
    pieces = []
    for path in paths:
        with path.open("rb") as file:
            offsets = np.load(file, allow_pickle=False)
            _skip_header(file)
            begin, end = int(offsets[partition]), int(offsets[partition + 1])
            file.seek(begin * record.itemsize, os.SEEK_CUR)
            data = file.read((end - begin) * record.itemsize)
        pieces.append(np.frombuffer(data, record))
    return np.concatenate(pieces) if pieces else np.empty(0, record)


def save(array: NDArray[Any], path: Path) -> None:
    """Write an array atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    temporary.replace(path)


def load(path: Path) -> NDArray[Any]:
    """Return an array that :func:`save` wrote, memory-mapped."""
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _skip_header(file: Any) -> None:
    """Skip from the start of a saved array to its values."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    read(file)


def find(rows: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of each of ``rows`` in the ascending ``among``, or -1."""
    if not len(among):
        return np.full(len(rows), -1, np.int64)
    at = np.minimum(np.searchsorted(among, rows), len(among) - 1)
    return np.where(among[at] == rows, at, -1)
