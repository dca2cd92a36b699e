"""Reads curated documents and decides which become training, validation and annealing text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from herdlm.base.errors import DamagedError, InputError
from herdlm.tokens.sources import ANNEAL, VALIDATION, WEB, SourceConfig, source_of

GENERAL = "general"


@dataclass(frozen=True, slots=True)
class Document:
    """A curated document. Its knowledge domain is "general" where curation gave it none."""

    id: str
    text: str
    language: str
    quality: float
    domain: str = GENERAL


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a Parquet file, or of a folder of them in the order of their names, a batch at a time.

    Raises:
        InputError: it is missing, or a folder without a Parquet file.
        DamagedError: a file in it is no Parquet file or lacks a column.
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
    """Ids of the documents of each set; ``anneal`` is the better part of ``train``.

    ``cut`` counts, by language, the documents left out of all of them by the language's limit. Where the recipe has
    sources, ``source`` names each document's and ``outside`` counts, by domain and language, those of none.
    """

    train: frozenset[str]
    validation: frozenset[str]
    anneal: frozenset[str]
    cut: dict[str, int]
    source: dict[str, str] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)

    def shards(self, id: str) -> list[str]:
        """The names of the shards a document belongs to."""
        name = self.source.get(id, WEB)
        if id in self.validation:
            return list(dict.fromkeys([f"{WEB}{VALIDATION}", f"{name}{VALIDATION}"]))
        if id not in self.train:
            return []
        return [name, f"{name}{ANNEAL}"] if id in self.anneal else [name]


def split_documents(
    path: Path,
    *,
    seed: int,
    validation_percent: float,
    anneal_percent: float,
    max_text_megabytes: dict[str, float],
    sources: Mapping[str, SourceConfig] | None = None,
) -> Split:
    """Divide documents by hashes of their ids.

    A language keeps its documents with the lowest hashes, as many as its ``max_text_megabytes`` hold. The validation
    set takes ``validation_percent`` by a second hash, and at least one document of each language that has two. The
    annealing set takes the best by quality of all.

    With ``sources``, both are done within each domain and language of each source, whose scores alone compare well,
    and documents of no source are in no set.

    Raises:
        InputError: a set would be empty.
    """
    rows = []
    for document in read_documents(path):
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
            name = source_of(sources, language, domain)
            if name is None:
                key = f"{domain}, {language}"
                outside[key] = outside.get(key, 0) + 1
                continue
            group = (name, domain, language)
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
    _refuse_empty(path, train, validation, sources or {}, source)
    best: list[str] = []
    alike = train if sources else {(WEB,): [row for found in train.values() for row in found]}
    for group, found in alike.items():
        own = sources[group[0]].anneal_percent if sources else None
        wanted = max(round(len(found) * (anneal_percent if own is None else own) / 100), 1)
        best += [id for _, id in sorted(found, reverse=True)[:wanted]]
    ids = [id for found in train.values() for _, id in found]
    return Split(frozenset(ids), frozenset(validation), frozenset(best), cut, source, outside)


def _refuse_empty(
    path: Path,
    train: Mapping[tuple[str, ...], list[tuple[float, str]]],
    validation: list[str],
    sources: Mapping[str, SourceConfig],
    source: Mapping[str, str],
) -> None:
    training = sum(map(len, train.values()))
    if not training or not validation:
        raise InputError(
            f"{path} holds too few documents for training and validation ({training} and {len(validation)})",
            "Give more pages, or raise tokens.validation_percent and tokens.max_text_megabytes",
        )
    for name in sources:
        count = sum(len(found) for group, found in train.items() if group[0] == name)
        held_out = sum(source[id] == name for id in validation)
        if not count or not held_out:
            raise InputError(
                f"tokens.sources.{name} takes {count} documents of {path} for training and {held_out} for validation",
                "Mend its languages and domains, give more pages, or drop it",
            )


def _hash(seed: int, purpose: str, id: str) -> float:
    digest = hashlib.blake2b(f"{seed}\x1f{purpose}\x1f{id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
