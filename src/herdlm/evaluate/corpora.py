"""Streams the texts of training data: documents, rows of any form, plain text, and token shards."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from herdlm.base.errors import DamagedError, InputError
from herdlm.data.files import read_rows
from herdlm.data.row import RowError
from herdlm.tokens.shards import Shard
from herdlm.tokens.sources import VALIDATION
from herdlm.tokens.tokenizer import Tokenizer

PLAIN = (".txt", ".md")
ROWS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
BLOCK = 1 << 20  # characters of plain text at a time
CARRIED = 1 << 10  # characters that a block repeats, so that no n-gram is lost between two
HASHED = 1 << 20  # bytes at either end that identify a file


class Corpus:
    """Training data: a file, a token shard, or a folder of either, of any depth.

    A folder of token shards is read without those of held-out text.

    Args:
        tokenizers: folders among which a shard's tokenizer is sought, beside those around the shard.

    Raises:
        InputError: there is no such data, or a shard's tokenizer is not found.
    """

    def __init__(self, path: Path, tokenizers: Sequence[Path] = ()) -> None:
        self.path = path
        self._files: list[Path] = []
        self._shards: list[tuple[Shard, Tokenizer]] = []
        for part in _parts(path):
            if part.is_dir():
                shard = Shard(part)
                self._shards.append((shard, _tokenizer_of(shard, tokenizers)))
            else:
                self._files.append(part)

    def content(self) -> str:
        """A hash of names, sizes and ends of the files, cheap for a corpus of any size."""
        digest = hashlib.sha256()
        for file in self._files:
            size = file.stat().st_size
            name = file.name if file == self.path else str(file.relative_to(self.path))
            digest.update(f"{name}\n{size}\n".encode())
            with file.open("rb") as opened:
                digest.update(opened.read(HASHED))
                opened.seek(max(size - HASHED, 0))
                digest.update(opened.read(HASHED))
        for shard, _ in self._shards:
            digest.update(shard.content().encode())
        return digest.hexdigest()

    def texts(self) -> Iterator[str]:
        """Each document's text, one at a time: of a row, such as a dialog or a document, all of its strings.

        Raises:
            InputError, DamagedError: a row or a file cannot be read.
        """
        for file in self._files:
            yield from _blocks(file) if _ending(file) in PLAIN else _row_texts(file)
        for shard, tokenizer in self._shards:
            for begin, end in zip(shard.offsets[:-1].tolist(), shard.offsets[1:].tolist(), strict=True):
                yield tokenizer.decode(shard.tokens[begin:end].tolist())


def _parts(path: Path) -> list[Path]:
    """The files and shards that a path means."""
    if not path.exists():
        raise InputError(f"{path} does not exist", "Give training data: a file, a folder of files, or token shards")
    if path.is_file():
        if _ending(path) not in (*PLAIN, *ROWS):
            raise InputError(f"{path} is of no known type", f"Known are {', '.join((*PLAIN, *ROWS))}, also gzipped")
        return [path]
    if _is_shard(path):
        return [path]
    shards = [index.parent for index in sorted(path.rglob("index.json")) if _is_shard(index.parent)]
    if shards:
        return [shard for shard in shards if not shard.name.endswith(VALIDATION)]
    if (path / "documents.parquet").is_file():  # a curated corpus, whose other files are reports
        return [path / "documents.parquet"]
    files = sorted((path / "documents").glob("*.parquet"))
    files = files or [file for file in sorted(path.rglob("*")) if file.is_file() and _ending(file) in (*PLAIN, *ROWS)]
    if not files:
        raise InputError(f"{path} holds no text that can be read", f"Known are {', '.join((*PLAIN, *ROWS))}")
    return files


def _is_shard(folder: Path) -> bool:
    return (folder / "index.json").is_file() and (folder / "tokens.bin").is_file()


def _ending(path: Path) -> str:
    ending = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    return ending.lower()


def _tokenizer_of(shard: Shard, folders: Sequence[Path]) -> Tokenizer:
    around = [place for parent in list(shard.folder.resolve().parents)[:2] for place in (parent, parent / "tokenizer")]
    for folder in (shard.folder, *around, *folders):
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.load(folder)
            if tokenizer.content() == shard.index.tokenizer:
                return tokenizer
    raise InputError(
        f"{shard.folder}: its tokenizer is neither beside it nor that of a model", "Copy its tokenizer.json beside it"
    )


def _blocks(path: Path) -> Iterator[str]:
    """Plain text in blocks that end between words; each repeats the end of the one before."""
    rest = ""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            while chunk := file.read(BLOCK):
                text = rest + chunk
                end = max(text.rfind(" "), text.rfind("\n"))
                if end < 0:
                    rest = text
                    continue
                yield text[:end]
                rest = text[text.rfind(" ", 0, max(end - CARRIED, 0)) + 1 :]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}", "Convert the file to UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DamagedError(f"{path} is not whole: {error}", "Download or copy it again") from error
    if rest:
        yield rest


def _row_texts(path: Path) -> Iterator[str]:
    for row in read_rows(path, is_row=lambda row: True):
        if isinstance(row, RowError):
            raise row
        yield "\n".join(_strings(row.value))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
