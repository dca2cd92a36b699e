"""Reads the canonical records of files: dialogs, preference pairs, thumbs, prompts; with counts of what was dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

from herdlm.base.errors import InputError
from herdlm.base.seeds import stream
from herdlm.data.counts import Counts
from herdlm.data.files import read_rows
from herdlm.data.formats.detect import convert, form_of, known_form
from herdlm.data.formats.form import Form, Kind, Record
from herdlm.data.row import Rename, Row, RowError
from herdlm.data.source import Source
from herdlm.data.useless import NOTHING_MADE, REWRITTEN, Sieve, by_answer, sides
from herdlm.tokens.chat import Message, special_parts
from herdlm.tokens.chat_format import ChatFormat
from herdlm.tokens.dialogs import Dialog
from herdlm.tokens.preferences import Preference

DIVIDED = "divided into an example for each answer, before which the chat template writes something else"


class Thumb(TypedDict, total=False):
    """A rated answer, as KTO takes it: ``label`` is true for a thumb up."""

    prompt: list[Message]
    completion: list[Message]
    label: bool
    tools: list[dict[str, Any]]


class Prompt(TypedDict, total=False):
    """A prompt to sample answers to; those with a ``verifier`` can be checked (see :mod:`formats.problems`)."""

    prompt: list[Message]
    tools: list[dict[str, Any]]
    answer: str
    tests: list[str]
    instruction_id_list: list[str]
    kwargs: list[dict[str, Any]]
    verifier: str
    task: str


def parse_rename(given: Sequence[str]) -> dict[str, str]:
    """Columns' names in the file by the names that herdlm knows, from ``messages=chat`` and the like.

    Raises:
        InputError: one is not of this form, or names a column twice.
    """
    found: dict[str, str] = {}
    for item in (part.strip() for text in given for part in text.split(",")):
        new, sign, old = item.partition("=")
        if not (new and sign and old):
            raise InputError(f"--map {item} is not of the form NAME=COLUMN", "Write --map messages=chat")
        if new in found or old in found.values():
            raise InputError(f"--map names {new if new in found else old} twice", "Give each column once")
        found[new] = old
    return found


@dataclass(frozen=True, slots=True)
class Converted:
    """A row with the records of one kind that it gives."""

    row: Row
    form: Form
    kind: Kind
    records: list[Record]


def converted(path: Path, kind: Kind | None, rename: Rename | None = None) -> Iterator[Converted | RowError]:
    """Each row of a file as records of a kind (by default the kind of the row's form), or why it cannot be read."""
    for row in read_rows(path, rename=rename, is_row=lambda row: form_of(row) is not None):
        if isinstance(row, RowError):
            yield row
            continue
        try:
            form = known_form(row)
            own = kind if kind is not None else next(iter(form.makes))
            yield Converted(row, form, own, convert(row, form, own))
        except RowError as error:
            yield error


def sieved(found: Converted, sieve: Sieve, counts: Counts) -> Iterator[tuple[Record, str | None, int]]:
    """Each record of a row with the reason why it is dropped, or None, and its length; counts them.

    Raises:
        RowError: a message asks for a special token that the tokenizer does not have.
    """
    check_special_parts(found, sieve.chat_format)
    judged = list(_judged(found, sieve))
    counts.row(found.row, found.form.name)
    if not found.records:
        counts.drop(found.row.useless or NOTHING_MADE, found.row.where())
    for record, reason, length in judged:
        if reason is None:
            counts.keep()
        else:
            counts.drop(reason, found.row.where())
        yield record, reason, length


def _judged(found: Converted, sieve: Sieve) -> Iterator[tuple[Record, str | None, int]]:
    """As :func:`sieved`, without counts. A dialog that its template rewrites becomes one for each answer."""
    path = str(found.row.path)
    for record in found.records:
        reason, length = sieve.reason(found.kind, record, path)
        parts = by_answer(record) if reason == REWRITTEN and found.kind == "dialogs" else []
        if len(parts) > 1:
            found.row.notes.append(DIVIDED)
            yield from ((part, *sieve.reason(found.kind, part, path)) for part in parts)
        else:
            yield record, reason, length


def check_special_parts(found: Converted, chat_format: ChatFormat | None) -> None:
    """Refuse a row that asks for a special token that the tokenizer does not have.

    Raises:
        RowError: it does.
    """
    if chat_format is None or found.kind == "text":
        return
    said = (message for record in found.records for messages, _ in sides(found.kind, record) for message in messages)
    for name in (name for message in said for name in special_parts(message)):
        if not chat_format.knows(name):
            raise found.row.error(
                "", f"the tokenizer of {chat_format.where} has no special token {name!r}", "Use one that it has"
            )


def read_records(
    kind: Kind,
    sources: Sequence[Source],
    *,
    chat_format: ChatFormat | None = None,
    seq_len: int | None = None,
    rename: Rename | None = None,
    seed: int = 0,
    named: bool = False,
) -> tuple[list[Record], Counts]:
    """The records of one kind in files, and what became of their rows. Rows that teach nothing are dropped and counted.

    Args:
        chat_format: with it, what the template refuses or ``seq_len`` tokens cannot hold is dropped, too.
        rename: columns' names in the files by the names that herdlm knows.
        seed: chooses the rows of a file whose weight is not a whole number.
        named: give a record without a ``task`` the name of its file.

    Raises:
        InputError: a row cannot be read or gives no such record, or no row is left.
    """
    sieve, counts, records = Sieve(chat_format=chat_format, seq_len=seq_len), Counts(), []
    for number, source in enumerate(sources):
        own: list[Record] = []
        for found in converted(source.path, kind, rename):
            if isinstance(found, RowError):
                raise found
            own += [record for record, reason, _ in sieved(found, sieve, counts) if reason is None]
        if named:
            own = [{"task": source.path.stem} | record for record in own]
        records += _weighted(own, source.weight, seed, number)
    if not records:
        names = ", ".join(str(source.path) for source in sources)
        reasons = "; ".join(counts.lines()) or "they hold no rows"
        raise InputError(f"no row of {names} can be used: {reasons}", "Look at it with herdlm data check")
    counts.used = len(records)
    return records, counts


def _weighted(records: list[Record], weight: float, seed: int, number: int) -> list[Record]:
    times, part = divmod(weight, 1.0)
    chosen = stream(seed, "weights", number).permutation(len(records))[: round(len(records) * part)]
    return records * int(times) + [records[i] for i in sorted(chosen.tolist())]


def read_dialogs(sources: Sequence[Source], **options: Any) -> tuple[list[Dialog], Counts]:
    """Dialogs with at least one target; options and errors are those of :func:`read_records`."""
    records, counts = read_records("dialogs", sources, **options)
    return cast(list[Dialog], records), counts


def read_preferences(sources: Sequence[Source], **options: Any) -> tuple[list[Preference], Counts]:
    """Pairs of different answers; options and errors are those of :func:`read_records`."""
    records, counts = read_records("preferences", sources, **options)
    return cast(list[Preference], records), counts


def read_thumbs(sources: Sequence[Source], **options: Any) -> tuple[list[Thumb], Counts]:
    """Rated answers; options and errors are those of :func:`read_records`."""
    records, counts = read_records("thumbs", sources, **options)
    return cast(list[Thumb], records), counts


def read_prompts(sources: Sequence[Source], **options: Any) -> tuple[list[Prompt], Counts]:
    """Prompts; options and errors are those of :func:`read_records`."""
    records, counts = read_records("prompts", sources, **options)
    return cast(list[Prompt], records), counts
