"""Shows documents of a corpus: those kept, or those dropped with their step and reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from herdlm.base.errors import DamagedError, InputError
from herdlm.curate.assemble import DOCUMENTS, DROPPED

SHOWN_CHARS = 1500


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which documents to show. None matches any."""

    step: str | None = None
    reason: str | None = None
    language: str | None = None


def find_documents(corpus: Path, wanted: Wanted, *, dropped: bool, limit: int) -> list[dict[str, Any]]:
    """Return the first ``limit`` documents that match ``wanted``, of a corpus or of a run's corpus.

    Raises:
        InputError: There is no such corpus, it did not keep what was dropped, or no document matches. The error lists
            the values that exist.
    """
    stage = corpus / "stages" / "curate"
    folder = (stage if stage.is_dir() else corpus) / (DROPPED if dropped else DOCUMENTS)
    if not dropped and (wanted.step or wanted.reason):
        raise InputError("only dropped documents have a step and a reason", "Add --dropped")
    if not folder.is_dir():
        if dropped and folder.with_name(DOCUMENTS).is_dir():
            raise InputError(f"{corpus} did not keep what was dropped", "Curate with keep_dropped = all or sample")
        raise InputError(
            f"{corpus} is not a corpus: it has no folder {folder.name}", "Give a folder that `herdlm curate` made"
        )
    found: list[dict[str, Any]] = []
    for table in _tables(folder, wanted):
        found += table.slice(0, limit - len(found)).to_pylist()
        if len(found) >= limit:
            return found
    if not found:
        raise InputError(f"no document of {folder} is {_described(wanted)}", _remedy(folder, wanted))
    return found


def as_lines(documents: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines that show documents in a terminal."""
    for document in documents:
        heading = f"== {document['id']}  {document['url'] or ''}  {document['language'] or 'language unknown'}"
        yield _printable(heading)
        if document.get("step"):
            repeats = f", of {document['duplicate_of']}" if document["duplicate_of"] else ""
            yield _printable(f"   dropped by {document['step']}: {document['reason']}{repeats}")
        text = document["text"] or ""
        yield _printable(text[:SHOWN_CHARS]) if text else "   (no text was found)"
        if len(text) > SHOWN_CHARS:
            yield f"   ... and {len(text) - SHOWN_CHARS:,} more characters"


def _printable(text: str) -> str:
    """Return text of a web page without the control characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _tables(folder: Path, wanted: Wanted, columns: list[str] | None = None) -> Iterator[pa.Table]:
    for part in sorted(folder.glob("*.parquet")):
        try:
            with pq.ParquetFile(part) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=columns)
                    for name, value in asdict(wanted).items():
                        if value is not None:
                            table = table.filter(pc.equal(table[name], value))
                    yield table
        except (pa.ArrowInvalid, KeyError) as error:
            raise DamagedError(f"{part} is not a file of documents: {error}", "Curate again") from error


def _described(wanted: Wanted) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(wanted).items() if value is not None) or "there"


def _remedy(folder: Path, wanted: Wanted) -> str:
    """Return which values there are of the keys that were asked for."""
    names = [name for name, value in asdict(wanted).items() if value is not None]
    if not names:
        return "It is empty"
    there = {name: set[str]() for name in names}
    for table in _tables(folder, Wanted(), names):
        for name in names:
            there[name].update(value for value in table[name].unique().to_pylist() if value)
    return "; ".join(f"{name}s there: {', '.join(sorted(values))}" for name, values in there.items())
