"""Reads documents to pre-train on: curated corpora, files of rows with a text, and plain text files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from herdlm.base.errors import InputError
from herdlm.data.files import decode, lines_of, read_rows
from herdlm.data.row import Row, RowError
from herdlm.tokens.documents import GENERAL, Document

PLAIN = (".txt", ".md", ".text")
ROWS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Corpus:
    """A file or folder of documents, and the name of the source that its documents form, if it has one."""

    path: Path
    name: str = ""


def parse_corpus(given: str) -> Corpus:
    """``PATH`` or ``NAME=PATH``. A path that exists is that path, also with "=" in it."""
    name, sign, path = given.partition("=")
    return Corpus(Path(path), name) if sign and name and path and not Path(given).exists() else Corpus(Path(given))


def read_corpora(corpora: Sequence[Corpus], text_key: str) -> Iterator[Document]:
    """The documents of all corpora that hold text; a named corpus gives its documents its name as their domain.

    A curated document keeps its id. Another's id is a hash of its text, so that equal texts are never on both sides of
    a split, and the order and names of files do not matter.

    Raises:
        InputError: a path holds no documents, or a row has no text.
    """
    for corpus in corpora:
        for path in _files(corpus.path):
            for document in _documents(path, text_key):
                if not document.text.strip():
                    continue
                if corpus.name:
                    id = f"{corpus.name}:{document.id}"
                    yield Document(id, document.text, document.language, document.quality, corpus.name)
                else:
                    yield document


def _files(path: Path) -> list[Path]:
    """A file, or the files of documents in a folder; a curated corpus has them in its folder ``documents``."""
    if not path.is_dir():
        return [path]
    folder = path / "documents" if (path / "documents").is_dir() else path
    found = [file for file in sorted(folder.iterdir()) if file.is_file() and _suffix(file) in (*PLAIN, *ROWS)]
    found = [
        file for file in found if not file.name.startswith(".") and file.name not in ("manifest.json", "funnel.json")
    ]
    if not found:
        raise InputError(f"{folder} holds no documents", f"Give a folder with files that end with {', '.join(ROWS)}")
    return found


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _documents(path: Path, text_key: str) -> Iterator[Document]:
    if _suffix(path) in PLAIN:
        yield _document({}, _plain_text(path))
        return
    for row in read_rows(path, is_row=lambda row: text_key.lower() in row):
        if isinstance(row, RowError):
            raise row
        yield _document(row.value, _text(row, text_key))


def _text(row: Row, text_key: str) -> str:
    value = row.get(text_key) if text_key in row.value else row.get(text_key.lower())
    if not isinstance(value, str):
        seen = ", ".join(row.seen[:12])
        raise row.error(text_key, f"the row has no text there; keys seen: {seen}", "Name the key with --text-key")
    return value


def _document(row: dict[str, object], text: str) -> Document:
    id, language, quality, domain = (row.get(key) for key in ("id", "language", "quality", "domain"))
    score = float(quality) if isinstance(quality, int | float) and abs(quality) < 1e9 else 0.0
    curated = isinstance(id, str) and isinstance(language, str) and "quality" in row
    return Document(
        str(id) if curated else hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
        text,
        language if isinstance(language, str) else "und",
        score,
        domain if isinstance(domain, str) else GENERAL,
    )


def _plain_text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path} does not exist", "Check the path")
    parts = []
    for number, line in lines_of(path):
        text = decode(path, number, line)
        if isinstance(text, RowError):
            raise text
        parts.append(text)
    return "".join(parts)
