"""Reads curated documents and splits them into training, validation and annealing text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from herdlm.base.errors import DamagedError, InputError
from herdlm.tokens.sources import ANNEAL, VALIDATION, WEB, SourceConfig, source_of

GENERAL = "general"


@dataclass(frozen=True, slots=True)
class Document:
    """A curated document. Its knowledge domain is "general" if curation assigned none."""

    id: str
    text: str
    language: str
    quality: float
    domain: str = GENERAL


def read_documents(path: Path) -> Iterator[Document]:
    """Yield the documents of a Parquet file, or of a folder of them in the order of their names.

    Raises:
        InputError: ``path`` is missing, or a folder without a Parquet file.
        DamagedError: a file is not Parquet, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if not parts:
        raise InputError(f"{path} does not exist or holds no documents", "Run the curate stage")
    for part in parts:
        try:
            with pq.ParquetFile(part) as file:
                names = ["id", "text", "language", "quality"]
                names += [name for name in ("domain",) if name in file.schema_arrow.names]
                for batch in file.iter_batches(256, columns=names):
                    columns = (batch.column(name).to_pylist() for name in names)
                    yield from (Document(*row) for row in zip(*columns, strict=True))
        except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError) as error:
            raise DamagedError(f"{part} is not a file of documents: {error}", "Run the curate stage again") from error


@dataclass(frozen=True, slots=True)
class Split:
    """The ids of the documents in each set.

    Attributes:
        anneal: the part of ``train`` with the best quality.
        cut: by language, how many documents the language's limit removed.
        source: each document's source, if the recipe has sources.
        outside: by domain and language, how many documents belong to no source.
    """

    train: frozenset[str]
    validation: frozenset[str]
    anneal: frozenset[str]
    cut: dict[str, int]
    source: dict[str, str] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)

    def shards(self, id: str) -> list[str]:
        """The names of the shards that a document belongs to."""
        name = self.source.get(id, WEB)
        if id in self.validation:
            return list(dict.fromkeys([f"{WEB}{VALIDATION}", f"{name}{VALIDATION}"]))
        if id not in self.train:
            return []
        return [name, f"{name}{ANNEAL}"] if id in self.anneal else [name]


def split_documents(
    given: Iterable[Document],
    name: object,
    *,
    seed: int,
    validation_percent: float,
    anneal_percent: float,
    max_text_megabytes: dict[str, float],
    sources: Mapping[str, SourceConfig] | None = None,
) -> Split:
    """Split documents by hashes of their ids.

    A language keeps its documents with the lowest hashes, up to its ``max_text_megabytes``. The validation set takes
    ``validation_percent`` by a second hash, and at least one document of each language that has two. The annealing set
    takes the documents with the best quality.

    With ``sources``, both sets are drawn within each domain and language of a source, since only these scores compare
    well. Documents of no source are in no set.

    Args:
        name: what errors call the documents, such as their path.

    Raises:
        InputError: a set would be empty.
    """
    rows = []
    for document in given:
        order, draw = (_hash(seed, purpose, document.id) for purpose in ("order", "validation"))
        size = len(document.text.encode()) / 1e6
        kind = (document.language, document.domain)
        rows.append((order, draw, document.id, kind, document.quality, size))
    kept: dict[tuple[str, ...], list[tuple[float, float, str]]] = {}
    used: dict[str, float] = {}
    cut: dict[str, int] = {}
    outside: dict[str, int] = {}
    source: dict[str, str] = {}
    for _, draw, id, (language, domain), quality, megabytes in sorted(rows):
        group: tuple[str, ...] = (language,)
        if sources:
            owner = source_of(sources, language, domain)
            if owner is None:
                key = f"{domain}, {language}"
                outside[key] = outside.get(key, 0) + 1
                continue
            group = (owner, domain, language)
        used[language] = used.get(language, 0.0) + megabytes
        if used[language] > max_text_megabytes.get(language, float("inf")):
            cut[language] = cut.get(language, 0) + 1
        else:
            kept.setdefault(group, []).append((draw, quality, id))
            if sources:
                source[id] = group[0]
    train: dict[tuple[str, ...], list[tuple[float, str]]] = {}
    validation: list[str] = []
    for group, documents in kept.items():
        documents.sort()
        chosen = sum(draw * 100 < validation_percent for draw, _, _ in documents) or int(len(documents) > 1)
        validation += [id for _, _, id in documents[:chosen]]
        train[group] = [(quality, id) for _, quality, id in documents[chosen:]]
    _refuse_empty(name, train, validation, sources or {}, source)
    best: list[str] = []
    alike = train if sources else {(WEB,): [row for found in train.values() for row in found]}
    for group, found in alike.items():
        own = sources[group[0]].anneal_percent if sources else None
        wanted = max(round(len(found) * (anneal_percent if own is None else own) / 100), 1)
        best += [id for _, id in sorted(found, reverse=True)[:wanted]]
    ids = [id for found in train.values() for _, id in found]
    return Split(frozenset(ids), frozenset(validation), frozenset(best), cut, source, outside)


def _refuse_empty(
    where: object,
    train: Mapping[tuple[str, ...], list[tuple[float, str]]],
    validation: list[str],
    sources: Mapping[str, SourceConfig],
    source: Mapping[str, str],
) -> None:
    training = sum(map(len, train.values()))
    if not training or not validation:
        raise InputError(
            f"{where} has too few documents for training and validation ({training} and {len(validation)})",
            "Add pages, or raise tokens.validation_percent and tokens.max_text_megabytes",
        )
    for name in sources:
        count = sum(len(found) for group, found in train.items() if group[0] == name)
        held_out = sum(source[id] == name for id in validation)
        if not count or not held_out:
            raise InputError(
                f"tokens.sources.{name} takes {count} documents of {where} for training and {held_out} for validation",
                "Correct its languages and domains, add pages, or remove the source",
            )


def _hash(seed: int, purpose: str, id: str) -> float:
    digest = hashlib.blake2b(f"{seed}\x1f{purpose}\x1f{id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
