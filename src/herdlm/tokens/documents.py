"""Reads curated documents and decides which become training, validation and annealing text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from herdlm.base.errors import DamagedError, InputError


@dataclass(frozen=True, slots=True)
class Document:
    """A curated document."""

    id: str
    text: str
    language: str
    quality: float


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a Parquet file, in its order, a batch at a time.

    Raises:
        InputError: the file is missing.
        DamagedError: it is no Parquet file or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"{path} does not exist", "Run the curate stage")
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(256, columns=["id", "text", "language", "quality"]):
                columns = (batch.column(name).to_pylist() for name in ("id", "text", "language", "quality"))
                yield from (Document(*row) for row in zip(*columns, strict=True))
    except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError) as error:
        raise DamagedError(f"{path} is not a file of documents: {error}", "Run the curate stage again") from error


@dataclass(frozen=True, slots=True)
class Split:
    """Ids of the documents of each set; ``anneal`` is the better part of ``train``."""

    train: frozenset[str]
    validation: frozenset[str]
    anneal: frozenset[str]


def split_documents(
    path: Path, *, seed: int, validation_percent: float, anneal_percent: float, max_text_megabytes: dict[str, float]
) -> Split:
    """Divide documents by a hash of their id, so that a document's set does not depend on which others there are.

    A language over its ``max_text_megabytes`` keeps the documents with the lowest hashes.
    """
    rows = []
    for document in read_documents(path):
        digest = hashlib.blake2b(f"{seed}\x1f{document.id}".encode(), digest_size=8).digest()
        size = len(document.text.encode()) / 1e6
        rows.append((int.from_bytes(digest, "big") / 2**64, document.id, document.language, document.quality, size))
    used: dict[str, float] = {}
    train: list[tuple[float, str]] = []
    validation: list[str] = []
    for draw, id, language, quality, megabytes in sorted(rows):
        limit = max_text_megabytes.get(language, float("inf"))
        if used.get(language, 0.0) + megabytes > limit:
            continue
        used[language] = used.get(language, 0.0) + megabytes
        # The draw also orders the documents: a second, independent digit of it decides about validation.
        if (draw * 1e6) % 1 * 100 < validation_percent:
            validation.append(id)
        else:
            train.append((quality, id))
    if not train or not validation:
        raise InputError(
            f"{path} holds too few documents for training and validation ({len(train)} and {len(validation)})",
            "Give more pages, or raise tokens.validation_percent",
        )
    best = sorted(train, reverse=True)[: max(round(len(train) * anneal_percent / 100), 1)]
    return Split(frozenset(id for _, id in train), frozenset(validation), frozenset(id for _, id in best))
