"""An index of the documents of earlier crawls, on disk, against which a new crawl is de-duplicated and then added.

    INDEX/index.json              what keys mean: format and parameters; never changes
    INDEX/segment-00000/          one addition: arrays as .npy files, and segment.json with their sizes and hashes
        digests.npy  digest_rows.npy    uint64[N] ascending, uint32[N]: equal texts
        bands.npy    band_rows.npy      uint64[N * bands] ascending, uint32[N * bands]: near-equal texts
        sketches.npy                    uint8[N, sketch]
        ids.npy      id_ends.npy        uint8[bytes], int64[N]: the documents' names in UTF-8, end to end

Segments never change and appear by a rename, whole or not at all. Arrays are memory-mapped and are looked into with
sorted keys, so a look-up reads the pages it needs in order. Document d of D has the row ``d - D``: below zero and so
before every row of the new crawl, which makes its edges fit those of :mod:`groups`.

**Same result as one run.** Documents A in the index and then B lose of B exactly what A and B together would lose, for
equal and near-equal texts: whatever row of B has an edge to A is no first row of its group either way, and edges among
rows of B are those of one run, since a key that A has joins its rows to A's first row alone. For this the index takes
all documents that came to the step, dropped ones too: what repeats a dropped near-duplicate is dropped as well. What
differs: A is not looked at again, so where documents of B connect two groups of A both of their first documents stay,
and the row that a document of B is said to repeat is the first it meets, not the first of the connected group.
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

from herdlm.base.artefact import hash_file, sync_folder, write_text_durably
from herdlm.base.errors import DamagedError, InputError
from herdlm.curate.duplicates.groups import edges, unique_pairs
from herdlm.curate.steps.near_duplicates.minhash import NearDuplicatesConfig

FORMAT = 1  # raised whenever equal texts would get other keys: other hashes, other words
INDEX, SEGMENT = "index.json", "segment.json"
ARRAYS = ("digests", "digest_rows", "bands", "band_rows", "sketches", "ids", "id_ends")

Table = Literal["digests", "bands"]
ROWS_OF: dict[Table, str] = {"digests": "digest_rows", "bands": "band_rows"}


def _parameters(config: NearDuplicatesConfig) -> dict[str, int]:
    """What keys and sketches depend on. ``min_similarity`` is applied to them and may change."""
    return {"format": FORMAT} | config.model_dump(include={"ngram_words", "bands", "rows", "sketch"})


def open_index(folder: str, config: NearDuplicatesConfig) -> Index:
    """Open an index in a worker whose driver has checked its files: see :meth:`Index.open`."""
    return Index.open(Path(folder), config, hashes=False)


class Index:
    """The documents of earlier crawls; see the top of this file. Open one with :meth:`open` or :meth:`create`."""

    def __init__(self, folder: Path, config: NearDuplicatesConfig, segments: list[_Segment]) -> None:
        self.folder = folder
        self.config = config
        self.segments = segments
        self.starts = np.cumsum([0, *(segment.documents for segment in segments)], dtype=np.int64)

    @property
    def documents(self) -> int:
        """How many there are, D."""
        return int(self.starts[-1])

    @classmethod
    def create(cls, folder: Path, config: NearDuplicatesConfig) -> Index:
        """A new, empty index.

        Raises:
            InputError: there is something at ``folder``.
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
        """The index at ``folder``, which must have been made with the same parameters.

        ``hashes=False`` checks its files by size only, for workers that open what their driver has checked.

        Raises:
            InputError: there is none, or a parameter differs.
            DamagedError: a file is missing or is not what its segment says.
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
        """As :func:`groups.edges`, with the index's documents before ``rows``, which must not be negative.

        ``keys`` (N,) are digests or band keys, as ``table`` says; a row with a key that the index has is joined to the
        first document that has it.
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
        """The sketches (N, sketch) of documents by their (negative) rows."""
        found = np.empty((len(rows), self.config.sketch), np.uint8)
        for segment, local, mask in self._located(rows):
            found[mask] = segment.arrays["sketches"][local]
        return found

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The names of documents by their (negative) rows."""
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
        """The index with the documents of the crawl ``name`` after those it has: ``self`` does not change.

        Takes, in the crawl's order, for N documents that came to the step (equal texts but for their first left out)
        ``ids``, ``digests`` (N,), band ``keys`` (N, bands) and ``sketches`` (N, sketch), which may be memory-mapped.
        The sort takes about 32 bytes of memory a key; a crawl too large for that is added in parts, in order.

        Raises:
            InputError: the index has a crawl of that name, or got another one since it was opened.
        """
        count = len(ids)
        if any(segment.name == name for segment in self.segments):
            raise InputError(
                f"the index {self.folder} has the crawl {name!r} already", "Give the addition another name"
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
            working.rename(final)  # onto a folder that is not empty it fails
        except OSError as error:
            if final.exists():
                raise InputError(f"the index {self.folder} was added to meanwhile", "Run again against it") from error
            raise
        finally:
            shutil.rmtree(working, ignore_errors=True)
        sync_folder(self.folder)
        added = _Segment(final, self.config, hashes=False)
        return Index(self.folder, self.config, [*self.segments, added])


class _Segment:
    """One addition to an index, its arrays memory-mapped."""

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
            raise DamagedError(f"{folder} holds other arrays than its {SEGMENT} says", remedy)

    def first_rows(self, table: Table, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """For each of ``keys``, which ascend, the first row here that has it, or -1."""
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
    order = np.argsort(keys, kind="stable")  # so rows of one key ascend
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
