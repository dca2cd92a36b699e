"""The items of a task: rows of files in a data folder, or in files that the user names."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from herdlm.base.errors import DamagedError, HerdError, InputError
from herdlm.base.own_parts import load_part
from herdlm.data.files import read_rows
from herdlm.data.row import RowError
from herdlm.evaluate.task import Items, Join
from herdlm.evaluate.templates import Expression


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a set of files.

    Attributes:
        digest: a hash of the files' contents.
    """

    rows: list[dict[str, Any]]
    digest: str


def load_rows(items: Items, task: str, data: Sequence[Path]) -> Rows:
    """The rows of a task, in the order of its files, with the fields that the task adds.

    Each row has ``row`` (itself), ``file`` (its file's name without ending) and its columns.

    Args:
        data: folders in which the task's patterns are sought, and files that take their place.

    Raises:
        InputError: no file is found, a row cannot be read, or an expression fails.
    """
    found = _read(items.files, data)
    if found is None:
        patterns = ", ".join(items.files)
        places = (
            f"none of {patterns} is in {', '.join(map(str, data))}" if data else f"its files, {patterns}, are missing"
        )
        raise InputError(f"task {task}: {places}", f"Name its folder or the file with --data. It is {items.source}")
    rows, digest = found
    if items.join:
        digest = f"{digest} {_join(rows, items.join, task, data)}"
    prepare = load_part(items.prepare, f"task {task}, items.prepare") if items.prepare else None
    where = Expression(items.where, f"task {task}, items.where") if items.where else None
    fields = {name: Expression(text, f"task {task}, items.fields.{name}") for name, text in items.fields.items()}
    order = Expression(items.order, f"task {task}, items.order") if items.order else None
    kept = []
    for row in rows:
        try:
            if prepare:
                row.update(prepare(row))
            for name, expression in fields.items():
                row[name] = expression(row)
            if order is not None:
                texts = _texts(row, items)
                reorder(row, items, order({**row, "n": len(texts)}))
            if where is None or where(row):
                kept.append(row)
        except (HerdError, LookupError, TypeError, ValueError, AttributeError) as error:
            own = error.what if isinstance(error, HerdError) else ""
            problem = own or f"{row['place']}: {items.prepare} fails with {error!r}"
            raise InputError(problem, f"Check that the file has the task's form: {items.source}") from error
    if not kept:
        raise InputError(f"task {task} has no items in {', '.join(map(str, data))}", "Check the files")
    return Rows(kept, digest)


def _join(rows: list[dict[str, Any]], join: Join, task: str, data: Sequence[Path]) -> str:
    """Add the columns of other files; returns the hash of their contents."""
    found = _read(join.files, data)
    if found is None:
        raise InputError(
            f"task {task}: none of {', '.join(join.files)} is in {', '.join(map(str, data))}",
            "Put it beside the items' own file",
        )
    by_key = {row.get(join.on): row["row"] for row in found[0]}
    for row in rows:
        if row.get(join.on) not in by_key:
            raise InputError(
                f"{row['place']}: {join.on} = {row.get(join.on)!r} is not in {', '.join(join.files)}",
                "Use files of the same release",
            )
        row.update(by_key[row[join.on]])
    return found[1]


def reorder(row: dict[str, Any], items: Items, order: Any) -> None:
    """Put an item's choices in another order: the one numbered ``order[0]`` first; the answer's number follows.

    Raises:
        InputError: ``order`` does not name each choice once, or the item has no such choices.
    """
    texts, answer = _texts(row, items), row.get(items.answer)
    if not isinstance(order, list | tuple) or {*order} != {*range(len(texts))} or len(order) != len(texts):
        raise InputError(
            f"{row['place']}: {order!r} is no order of {len(texts)} choices", "Name each choice once, from 0"
        )
    row[items.choices] = [texts[number] for number in order]
    if isinstance(answer, list | tuple) and len(answer) == len(texts):
        row[items.answer] = [answer[number] for number in order]
    elif isinstance(answer, int) and 0 <= answer < len(texts):
        row[items.answer] = order.index(answer)
    else:
        raise InputError(
            f"{row['place']}: {items.answer} is {answer!r}, not the number of a choice", "Correct items.answer"
        )


def with_right_at(row: dict[str, Any], items: Items, place: int) -> dict[str, Any]:
    """A copy of an item whose (first) right choice has traded places with the one at ``place``.

    Raises:
        InputError: the item has no such place, or no choices.
    """
    texts, answer, moved = _texts(row, items), row.get(items.answer), dict(row)
    if not 0 <= place < len(texts):
        raise InputError(f"{row['place']}: there is no choice {place} of {len(texts)}", "Correct shots.answers")
    order = list(range(len(texts)))
    right = next((i for i, label in enumerate(answer) if label), 0) if isinstance(answer, list | tuple) else answer
    if right in order:
        order[right], order[place] = place, right
    reorder(moved, items, order)
    return moved


def _texts(row: dict[str, Any], items: Items) -> list[Any]:
    texts = row.get(items.choices)
    if not isinstance(texts, list | tuple) or not texts:
        raise InputError(f"{row['place']}: {items.choices} is {texts!r}, not a list", "Correct items.choices")
    return list(texts)


def _read(patterns: Sequence[str], data: Sequence[Path]) -> tuple[list[dict[str, Any]], str] | None:
    named = [path for path in data if path.is_file()]
    for path in data:
        if not path.exists():
            raise InputError(f"{path} does not exist", "Give a folder of data, or a file of items")
    wanted = [path for path in named if any(_fits(path, pattern) for pattern in patterns)] or (
        named if named and not any(path.is_dir() for path in data) else []
    )
    if wanted:
        return _rows(wanted, wanted)
    for folder in (path for path in data if path.is_dir()):
        for pattern in patterns:
            archive, bang, inside = pattern.partition("!")
            if bang and (folder / archive).is_file():
                with tempfile.TemporaryDirectory() as unpacked:
                    members = _unpack(folder / archive, inside, Path(unpacked))
                    if members:
                        return _rows(members, [folder / archive])
            elif not bang and (paths := sorted(folder.glob(pattern))):
                return _rows(paths, paths)
    return None


def _fits(path: Path, pattern: str) -> bool:
    return fnmatch(path.name, pattern.partition("!")[0].rsplit("/", 1)[-1])


def _unpack(archive: Path, pattern: str, folder: Path) -> list[Path]:
    try:
        with tarfile.open(archive) as tar:
            members = sorted(
                (member for member in tar.getmembers() if member.isfile() and fnmatch(member.name, pattern)),
                key=lambda member: member.name,
            )
            for member in members:
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DamagedError(f"{archive} cannot be unpacked: {error}", "Download or copy it again") from error
    return [folder / member.name for member in members]


def _rows(paths: Sequence[Path], hashed: Sequence[Path]) -> tuple[list[dict[str, Any]], str]:
    digest = hashlib.sha256()
    for path in hashed:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return [row for path in paths for row in _rows_of(path)], digest.hexdigest()


def _rows_of(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix in (".txt", ".md"):
        text = path.read_text(encoding="utf-8")
        yield {"text": text, "row": {"text": text}, "file": path.stem, "place": path.name}
        return
    stem = path.name.split(".", 1)[0]
    for row in read_rows(path, is_row=lambda row: True):
        if isinstance(row, RowError):
            raise row
        yield {**row.value, "row": row.value, "file": stem, "place": f"{path.name}, {row.place}"}
