"""Stores the sketches of a crawl's pages beside the files of the first pass, by row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def sketch_files(pages: Path) -> tuple[Path, Path]:
    """Return the paths of the rows (N,) and sketches (N, sketch) of a file of pages."""
    return pages.with_suffix(".rows.npy"), pages.with_suffix(".sketches.npy")


def write_sketches(pages: Path, rows: Sequence[int], sketches: Sequence[NDArray[np.uint8]], size: int) -> None:
    """Write the sketches of pages with ascending ``rows``, each file atomically."""
    stacked = np.stack(sketches) if sketches else np.empty((0, size), np.uint8)
    arrays: tuple[NDArray[Any], ...] = (np.array(rows, np.int64), stacked)
    for path, array in zip(sketch_files(pages), arrays, strict=True):
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        temporary.replace(path)


class Sketches:
    """The memory-mapped sketches of all pages that the first pass kept.

    ``pages`` are the files of the first pass in the order of rows, and ``size`` the bytes of a sketch.
    """

    def __init__(self, pages: Sequence[Path], size: int) -> None:
        self.size = size
        rows = [np.load(sketch_files(path)[0], mmap_mode="r", allow_pickle=False) for path in pages]
        held = [(each, path) for each, path in zip(rows, pages, strict=True) if len(each)]
        self._rows = [each for each, _ in held]
        self._paths = [sketch_files(path)[1] for _, path in held]
        self._firsts = np.array([each[0] for each in self._rows], np.int64)

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the sketches (N, sketch) of pages by their rows."""
        at = np.searchsorted(self._firsts, rows, side="right") - 1
        found = np.empty((len(rows), self.size), np.uint8)
        for number in np.unique(at).tolist():
            sketches = np.load(self._paths[number], mmap_mode="r", allow_pickle=False)
            mask = at == number
            found[mask] = sketches[np.searchsorted(self._rows[number], rows[mask])]
        return found
