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
    """The documents of a folder of Parquet files in the order of their names, a batch at a time.

    Raises:
        InputError: the folder is missing or holds no Parquet file.
        DamagedError: a file in it is no Parquet file or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = sorted(path.glob("*.parquet"))
    if not parts:
        raise InputError(f"{path} does not exist or holds no documents", "Run the curate stage")
    for part in parts:
        try:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(256, columns=["id", "text", "language", "quality"]):
                    columns = (batch.column(name).to_pylist() for name in ("id", "text", "language", "quality"))
                    yield from (Document(*row) for row in zip(*columns, strict=True))
        except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError) as error:
            raise DamagedError(f"{part} is not a file of documents: {error}", "Run the curate stage again") from error


@dataclass(frozen=True, slots=True)
class Split:
    """Ids of the documents of each set; ``anneal`` is the better part of ``train``.

    ``cut`` counts, by language, the documents left out of all of them by the language's limit.
    """

    train: frozenset[str]
    validation: frozenset[str]
    anneal: frozenset[str]
    cut: dict[str, int]


def split_documents(
    path: Path, *, seed: int, validation_percent: float, anneal_percent: float, max_text_megabytes: dict[str, float]
) -> Split:
    """Divide documents by hashes of their ids.

    A language keeps its documents with the lowest hashes, as many as its ``max_text_megabytes`` hold. The validation
    set takes ``validation_percent`` by a second hash, and at least one document of each language that has two.
    """
    rows = []
    for document in read_documents(path):
        order, draw = (_hash(seed, purpose, document.id) for purpose in ("order", "validation"))
        size = len(document.text.encode()) / 1e6
        rows.append((order, draw, document.id, document.language, document.quality, size))
    kept: dict[str, list[tuple[float, float, str]]] = {}
    used: dict[str, float] = {}
    cut: dict[str, int] = {}
    for _, draw, id, language, quality, megabytes in sorted(rows):
        used[language] = used.get(language, 0.0) + megabytes
        if used[language] > max_text_megabytes.get(language, float("inf")):
            cut[language] = cut.get(language, 0) + 1
        else:
            kept.setdefault(language, []).append((draw, quality, id))
    train: list[tuple[float, str]] = []
    validation: list[str] = []
    for documents in kept.values():
        documents.sort()
        chosen = sum(draw * 100 < validation_percent for draw, _, _ in documents) or int(len(documents) > 1)
        validation += [id for _, _, id in documents[:chosen]]
        train += [(quality, id) for _, quality, id in documents[chosen:]]
    if not train or not validation:
        raise InputError(
            f"{path} holds too few documents for training and validation ({len(train)} and {len(validation)})",
            "Give more pages, or raise tokens.validation_percent and tokens.max_text_megabytes",
        )
    best = sorted(train, reverse=True)[: max(round(len(train) * anneal_percent / 100), 1)]
    return Split(frozenset(id for _, id in train), frozenset(validation), frozenset(id for _, id in best), cut)


def _hash(seed: int, purpose: str, id: str) -> float:
    digest = hashlib.blake2b(f"{seed}\x1f{purpose}\x1f{id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
