"""Divides source files into shards: ranges that are read independently, in a fixed order.

The plan depends only on the files and ``shard_megabytes``, and not on who does the work. A page's row number combines
the number of its file and its number in the file, so it is the same under any plan, and a shard's rows are a range:
``row = file << NUMBER_BITS | number``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from herdlm.base.errors import InputError
from herdlm.curate.config import CurateConfig
from herdlm.curate.sources import jsonl, parquet, source_code
from herdlm.curate.sources.columns import check_columns, check_patterns, for_file
from herdlm.curate.sources.file import SourceFile, unreadable

NUMBER_BITS = 40
MAX_FILES = 1 << (63 - NUMBER_BITS)
MAX_NUMBER = (1 << NUMBER_BITS) - 1


@dataclass(frozen=True, slots=True)
class Shard:
    """The pages of a file whose numbers are in [``begin``, ``end``).

    Attributes:
        number: The shard's place in the order of all shards.
        file_number: The file's place in the order of all files.
        bytes: The shard's part of the file, to show progress.
        start: Where its first record is known to start, or None.
        members: For a folder of source code, the paths of its files, from number ``begin`` on.
    """

    number: int
    file: SourceFile
    file_number: int
    begin: int
    end: int
    bytes: int
    start: int | None = None
    members: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[int, int]:
        """The range of row numbers that this shard can have."""
        base = self.file_number << NUMBER_BITS
        return base + self.begin, base + self.end

    def __str__(self) -> str:
        return f"shard {self.number} ({self.file.name} from {self.begin:,})"


def plan_shards(files: Sequence[SourceFile], config: CurateConfig) -> list[Shard]:
    """Return the shards of all files, in order.

    Raises:
        InputError: There are too many files, or a Parquet file or folder cannot be read.
    """
    if len(files) > MAX_FILES:
        raise InputError(f"{len(files):,} source files are more than {MAX_FILES:,}", "Curate them in parts")
    size = max(int(config.shard_megabytes * 1e6), 1)
    shards: list[Shard] = []
    check_patterns([(file.path, file.given) for file in files], config)
    for number, file in enumerate(files):
        for begin, end, share, members in _divide(file, size, for_file(file.path, file.given, config)):
            shards.append(Shard(len(shards), file, number, begin, end, share, members=members))
    return shards


def _divide(file: SourceFile, size: int, config: CurateConfig) -> Iterator[tuple[int, int, int, tuple[str, ...]]]:
    """Yield (begin, end, bytes, members) of a file's shards. The last one ends at the largest possible number."""
    if file.format == "parquet":
        for begin, end, share in _row_ranges(file, size, config):
            yield begin, end, share, ()
    elif file.format == "code":
        begin = 0
        for members, share in source_code.divide(file, size):
            yield begin, begin + len(members), share, members
            begin += len(members)
    elif file.seekable and (
        (file.format == "warc" and not file.path.lower().endswith(".zst"))
        or (file.format == "jsonl" and _has_lines(file))
    ):
        count = max(round(file.bytes / size), 1)
        cuts = [file.bytes * i // count for i in range(count + 1)]
        for begin, end in itertools.pairwise(cuts):
            yield begin, end if end < file.bytes else MAX_NUMBER, end - begin, ()
    else:
        yield 0, MAX_NUMBER, file.bytes, ()


def _has_lines(file: SourceFile) -> bool:
    with file.open() as opened:
        return jsonl.can_divide(opened, file.path)


def _row_ranges(file: SourceFile, size: int, config: CurateConfig) -> list[tuple[int, int, int]]:
    try:
        with file.open() as opened:
            return parquet.row_ranges(opened, file.path, size, config)
    except (pa.ArrowInvalid, OSError) as error:
        raise unreadable(file, error) from error


def check_pages(
    file: SourceFile, pages: int, usable: int, config: CurateConfig, found: Mapping[str, int] | None = None
) -> None:
    """Check what a whole file gave: ``pages``, of which ``usable`` have no fault, and what its columns had (``found``).

    Raises:
        InputError: It has no page of the kind that its format promises, or a column that is named is in no row.
    """
    config = for_file(file.path, file.given, config)
    if file.format == "warc" and not pages:
        raise InputError(
            f"{file.path} holds no pages: it has no response, resource or conversion record",
            "Give a crawl, or the text that was extracted from one",
        )
    if file.format in ("jsonl", "arrow") and not usable:
        missing = "no line is a JSON object with text" if file.format == "jsonl" else "no row has text"
        raise InputError(
            f"{file.path} holds no pages: {missing} under {config.text_column!r}",
            "Set curate.text_column to the key that holds the text, or curate.format to what the file is",
        )
    if file.format == "code" and not usable:
        raise InputError(
            f"source {file.given} is a folder without source code",
            f"Name its files, say {file.given.rstrip('/')}/*.warc.gz, or give a folder of source code",
        )
    if not pages:
        raise InputError(f"{file.path} holds no pages: it has no rows", "Remove it from the sources")
    if found is not None and file.format in ("jsonl", "parquet", "arrow"):
        check_columns(file.path, found, config)
