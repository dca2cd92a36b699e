"""An on-disk index of the documents of earlier crawls, against which a new crawl is deduplicated, and then added.

    INDEX/index.json              format and parameters, which determine the keys; never changes
    INDEX/segment-00000/          one addition: arrays as .npy files, and segment.json with their sizes and hashes
        digests.npy  digest_rows.npy    uint64[N] ascending, uint32[N]: equal texts
        bands.npy    band_rows.npy      uint64[N * bands] ascending, uint32[N * bands]: nearly equal texts
        sketches.npy                    uint8[N, sketch]
        ids.npy      id_ends.npy        uint8[bytes], int64[N]: the documents' ids in UTF-8, end to end

Segments never change, and appear atomically by a rename. Arrays are memory-mapped and looked up with sorted keys, so a
look-up reads the pages it needs in order. Document d of D has the row ``d - D``, which is negative and so before every
row of the new crawl. This makes its edges fit those of :mod:`herdlm.curate.duplicates.groups`.

**Same result as one run.** With documents A in the index, documents B lose exactly what they would lose in one run of A
and B, for equal and nearly equal texts: a row of B with an edge to A is not the first row of its group either way, and
edges among rows of B are those of one run, since a key in A connects its rows only to the first row of A. For this, the
index takes all documents that reached the step, dropped ones included, so a duplicate of a dropped near-duplicate is
dropped as well. There are two differences. A is not looked at again, so if documents of B connect two groups of A, the
first documents of both stay. And the row that a document of B is reported to repeat is the first that it meets, not the
first of the connected group.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from herdlm.base.artifact import hash_file, sync_folder, write_text_durably
from herdlm.base.errors import DamagedError, InputError
from herdlm.curate.duplicates.groups import edges, unique_pairs
from herdlm.curate.steps.near_duplicates.minhash import NearDuplicatesConfig

FORMAT = 1  # raised when equal texts would get other keys, by other hashes or words
INDEX, SEGMENT = "index.json", "segment.json"
ARRAYS = ("digests", "digest_rows", "bands", "band_rows", "sketches", "ids", "id_ends")

Table = Literal["digests", "bands"]
ROWS_OF: dict[Table, str] = {"digests": "digest_rows", "bands": "band_rows"}


def _parameters(config: NearDuplicatesConfig) -> dict[str, int]:
    """Return what keys and sketches depend on. ``min_similarity`` is applied to them, and can change."""
    return {"format": FORMAT} | config.model_dump(include={"ngram_words", "bands", "rows", "sketch"})


def open_index(folder: str, config: NearDuplicatesConfig) -> Index:
    """Open an index in a worker, after its driver has checked the files: see :meth:`Index.open`."""
    return Index.open(Path(folder), config, hashes=False)


class Index:
    """The documents of earlier crawls. Use :meth:`open` or :meth:`create` to get one."""

    def __init__(self, folder: Path, config: NearDuplicatesConfig, segments: list[_Segment]) -> None:
        self.folder = folder
        self.config = config
        self.segments = segments
        self.starts = np.cumsum([0, *(segment.documents for segment in segments)], dtype=np.int64)

    @property
    def documents(self) -> int:
        """The number of documents, D."""
        return int(self.starts[-1])

    @classmethod
    def create(cls, folder: Path, config: NearDuplicatesConfig) -> Index:
        """Create an empty index.

        Raises:
            InputError: ``folder`` exists.
        """
        if folder.exists():
            raise InputError(f"{folder} exists already", "Open it, or give another folder for the new index")
        folder.parent.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        write_text_durably(working / INDEX, json.dumps(_parameters(config), indent=2) + "\n")
        working.rename(folder)
        sync_folder(folder.parent)
        return cls(folder, config, [])

    @classmethod
    def open(cls, folder: Path, config: NearDuplicatesConfig, *, hashes: bool = True) -> Index:
        """Open the index at ``folder``, which must have been made with the same parameters.

        ``hashes=False`` only checks the sizes of its files, for workers whose driver has checked the hashes.

        Raises:
            InputError: There is none, or a parameter differs.
            DamagedError: A file is missing or does not match its segment.
        """
        theirs, ours = _read_json(folder / INDEX, f"there is no index at {folder}"), _parameters(config)
        for name, value in ours.items():
            if theirs.get(name) != value:
                raise InputError(
                    f"the index {folder} was made with {name} = {theirs.get(name)}, this run has {value}",
                    f"Set near_duplicates.{name} to the index's value, or build a new index"
                    if name != "format"
                    else "Build a new index with this version of herdlm",
                )
        names = sorted(path.name for path in folder.glob("segment-*"))
        if names != [_segment_name(number) for number in range(len(names))]:
            raise DamagedError(f"the index {folder} lacks a segment: it has {', '.join(names)}", "Restore the folder")
        return cls(folder, config, [_Segment(folder / name, config, hashes=hashes) for name in names])

    def edges(self, table: Table, keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Do what :func:`herdlm.curate.duplicates.groups.edges` does, with the index's documents before ``rows``.

        ``rows`` must not be negative. ``keys`` (N,) are digests or band keys, as ``table`` says. A row with a key in
        the index is connected to the first document that has it.
        """
        firsts = np.zeros(len(keys), np.int64)
        order = np.argsort(keys, kind="stable")
        for segment, start in zip(self.segments, self.starts[:-1], strict=True):
            order = order[firsts[order] == 0]
            met = segment.first_rows(table, keys[order])
            firsts[order[met >= 0]] = met[met >= 0] + start - self.documents
        is_met = firsts < 0
        outward = np.stack([rows[is_met], firsts[is_met]], axis=1)
        return unique_pairs(np.concatenate([outward, edges(keys[~is_met], rows[~is_met])]))

    def sketches(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the sketches (N, sketch) of documents by their (negative) rows."""
        found = np.empty((len(rows), self.config.sketch), np.uint8)
        for segment, local, mask in self._located(rows):
            found[mask] = segment.arrays["sketches"][local]
        return found

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of documents by their (negative) rows."""
        found = np.empty(len(rows), object)
        for segment, local, mask in self._located(rows):
            found[mask] = [segment.id(int(row)) for row in local]
        return found.tolist()

    def _located(self, rows: NDArray[np.int64]) -> list[tuple[_Segment, NDArray[np.int64], NDArray[np.bool_]]]:
        documents = rows + self.documents
        assert np.all((documents >= 0) & (rows < 0)), "rows of the index are negative"
        number = np.searchsorted(self.starts, documents, side="right") - 1
        return [
            (segment, documents[mask] - self.starts[at], mask)
            for at, segment in enumerate(self.segments)
            if np.any(mask := number == at)
        ]

    def add(
        self,
        name: str,
        ids: Sequence[str],
        digests: NDArray[np.uint64],
        keys: NDArray[np.uint64],
        sketches: NDArray[np.uint8],
    ) -> Index:
        """Return an index with the documents of the crawl ``name`` after the current ones. ``self`` does not change.

        Takes, in the crawl's order, for N documents that reached the step (only the first of equal texts): ``ids``,
        ``digests`` (N,), band ``keys`` (N, bands) and ``sketches`` (N, sketch), which can be memory-mapped. The sort
        takes about 32 bytes of memory per key. Add a crawl that is too large in parts, in order.

        Raises:
            InputError: The index has a crawl of that name, or was added to since it was opened.
        """
        count = len(ids)
        if any(segment.name == name for segment in self.segments):
            raise InputError(
                f"the index {self.folder} already has the crawl {name!r}", "Give the addition another name"
            )
        if count >= 2**32:
            raise InputError(f"{name!r} has {count:,} documents, more than a segment can hold", "Add it in parts")
        assert digests.shape == (count,) and keys.shape == (count, self.config.bands)
        assert sketches.shape == (count, self.config.sketch)
        encoded = [each.encode() for each in ids]
        final = self.folder / _segment_name(len(self.segments))
        working = Path(tempfile.mkdtemp(prefix=".adding-", dir=self.folder))
        try:
            owners = np.repeat(np.arange(count, dtype=np.uint32), self.config.bands)
            arrays: dict[str, NDArray[Any]] = dict(
                zip(
                    ARRAYS,
                    [
                        *_sorted(digests, np.arange(count, dtype=np.uint32)),
                        *_sorted(keys.ravel(), owners),
                        sketches,
                        np.frombuffer(b"".join(encoded), np.uint8),
                        np.cumsum([len(e) for e in encoded], dtype=np.int64),
                    ],
                    strict=True,
                )
            )
            for each, array in arrays.items():
                _save(working / f"{each}.npy", array)
            files = {f"{each}.npy": _entry(working / f"{each}.npy") for each in ARRAYS}
            facts = {"name": name, "documents": count, "files": files}
            write_text_durably(working / SEGMENT, json.dumps(facts, indent=2) + "\n")
            sync_folder(working)
            working.rename(final)  # fails if the folder exists and is not empty
        except OSError as error:
            if final.exists():
                raise InputError(f"the index {self.folder} was added to in the meantime", "Run again") from error
            raise
        finally:
            shutil.rmtree(working, ignore_errors=True)
        sync_folder(self.folder)
        added = _Segment(final, self.config, hashes=False)
        return Index(self.folder, self.config, [*self.segments, added])


class _Segment:
    """One addition to an index, with memory-mapped arrays."""

    def __init__(self, folder: Path, config: NearDuplicatesConfig, *, hashes: bool) -> None:
        facts = _read_json(folder / SEGMENT, f"{folder} has no {SEGMENT}")
        remedy = "Restore the folder, or build the index again"
        try:
            self.name, self.documents = str(facts["name"]), int(facts["documents"])
            files = {
                f"{each}.npy": (int(e["bytes"]), str(e["sha256"]))
                for each in ARRAYS
                for e in [facts["files"][f"{each}.npy"]]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{folder / SEGMENT} is damaged", remedy) from error
        for name, (size, sha256) in files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size or (hashes and hash_file(path) != sha256):
                raise DamagedError(f"{path} is missing or damaged", remedy)
        self.arrays: dict[str, NDArray[Any]] = {each: _load(folder / f"{each}.npy") for each in ARRAYS}
        count = self.documents
        shapes = {"digests": (count,), "bands": (count * config.bands,), "sketches": (count, config.sketch)}
        if any(self.arrays[each].shape != shape for each, shape in shapes.items()):
            raise DamagedError(f"{folder} has other arrays than its {SEGMENT} lists", remedy)

    def first_rows(self, table: Table, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the first row here that has each of the ascending ``keys``, or -1."""
        known, rows = self.arrays[table], self.arrays[ROWS_OF[table]]
        found = np.full(len(keys), -1, np.int64)
        if not len(known):
            return found
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        is_met = known[at] == keys
        found[is_met] = rows[at[is_met]]
        return found

    def id(self, row: int) -> str:
        ends = self.arrays["id_ends"]
        return bytes(self.arrays["ids"][ends[row - 1] if row else 0 : ends[row]]).decode()


def _segment_name(number: int) -> str:
    return f"segment-{number:05}"


def _sorted(keys: NDArray[np.uint64], rows: NDArray[np.uint32]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    order = np.argsort(keys, kind="stable")  # keeps the rows of a key ascending
    return keys[order], rows[order]


def _save(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _load(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DamagedError(f"{path} is damaged", "Restore the folder, or build the index again") from error
    return array


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": hash_file(path)}


def _read_json(path: Path, what: str) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(what, "Check the path")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(f"{path} is not valid JSON", "Restore the folder, or build the index again") from error
    if not isinstance(value, dict):
        raise DamagedError(f"{path} is damaged", "Restore the folder, or build the index again")
    return value
